"""What the answers to the test rows, the golden cases and the rest of what is asked come to, as figures.

`figures` makes those of metrics/<size>/<task>/eval.json; `table` a breakdown of exact match for plots/. A
proportion comes with its sample size and its 95 % Wilson interval.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from stages.common.chat import CORRECT, ToolResult, render_prompt
from stages.common.danger import added_danger
from stages.common.metrics import wilson_interval

UNFIXABLE = "unfixable"
"""The family of the lines that nobody could correct, such as gibberish: every size leaves them as typed."""


@dataclass(frozen=True)
class Case:
    """One line to correct, and its answer."""

    command: str
    expected: str
    meta: dict[str, Any]
    accept: tuple[str, ...] = ()
    task: str = CORRECT
    results: tuple[ToolResult, ...] = ()
    is_left: bool = False
    """Whether the size is meant to leave such a line as typed; the true answer counts as right all the same."""

    @property
    def prompt(self) -> str:
        """What the clients send."""
        return render_prompt(self.meta["shell"], self.command, self.task, self.results)


@dataclass(frozen=True)
class Prediction:
    """What one quant answered to a case."""

    case: Case
    answer: str
    cut_off: bool = False
    """Whether the model had not come to an end when it had written as much as a client lets it."""

    @property
    def is_exact(self) -> bool:
        is_unchanged = self.answer == self.case.command.rstrip()
        return (
            self.answer == self.case.expected
            or self.answer in self.case.accept
            or (self.case.is_left and is_unchanged)
        )

    @property
    def changes_correct(self) -> bool:
        """Whether a command that was right already has become another one."""
        return self.case.meta["family"] == "correct" and self.answer != self.case.command

    @property
    def added_danger(self) -> list[str]:
        """What makes the answer dangerous where the typed command was not."""
        return added_danger(self.case.meta["shell"], self.case.command, self.answer)


@dataclass(frozen=True)
class Proportion:
    """A share of yes among yes and no; without any of them the share and its interval are null."""

    hits: int
    n: int

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> "Proportion":
        outcomes = list(outcomes)
        return cls(sum(outcomes), len(outcomes))

    @property
    def share(self) -> float | None:
        return round(self.hits / self.n, 6) if self.n else None

    @property
    def interval(self) -> tuple[float, float] | tuple[None, None]:
        """The 95 % Wilson interval."""
        if not self.n:
            return None, None
        low, high = wilson_interval(self.hits, self.n)
        return round(low, 6), round(high, 6)


def exact_match(predictions: Iterable[Prediction]) -> Proportion:
    """The share of right answers."""
    return Proportion.of(prediction.is_exact for prediction in predictions)


def meant(predictions: Iterable[Prediction]) -> list[Prediction]:
    """Those of lines that the size is meant to correct, or to find correct."""
    return [prediction for prediction in predictions if not prediction.case.is_left]


def by(field: str, predictions: Iterable[Prediction]) -> dict[str, list[Prediction]]:
    """The predictions by one field of their cases' meta, in the order of its values."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        groups[prediction.case.meta[field]].append(prediction)
    return dict(sorted(groups.items()))


def proportions(predictions: Mapping[str, Sequence[Prediction]]) -> dict[str, Proportion]:
    """All that is counted, by its name; `predictions` are those of `test`, `heldout`, `golden` and `promised`.

    Exact match leaves out the lines that the size is meant to leave as typed: 1,000 test rows of which 10 are
    requests that a small size leaves alone count 990. Whether those stay as typed (or become right), what adds
    danger and what does not end is counted over everything that was asked.
    """
    everything = list(chain.from_iterable(predictions.values()))
    test, golden = predictions["test"], predictions["golden"]
    return {
        "exact_match": exact_match(meant(test)),
        "golden_exact_match": exact_match(meant(golden)),
        "heldout_exact_match": exact_match(meant(predictions["heldout"])),
        "promised_exact_match": exact_match(predictions["promised"]),
        "left_as_typed_rate": exact_match(item for item in everything if item.case.is_left),
        "changed_correct_rate": _changed(test),
        "golden_changed_correct_rate": _changed(golden),
        "danger_added_rate": Proportion.of(bool(item.added_danger) for item in everything),
        "runaway_rate": Proportion.of(item.cut_off for item in everything),
    }


def _changed(predictions: Sequence[Prediction]) -> Proportion:
    return Proportion.of(item.changes_correct for item in by("family", predictions).get("correct", []))


def figures(counted: Mapping[str, Proportion]) -> dict[str, Any]:
    """The shares by name, and under `samples` the size and interval of each.

    `exact_match_n` is a figure of its own, since the gate compares by it. `samples` is a list, since dvc shows
    every number in a mapping as a column, but none in a list: no terminal holds three more columns a figure.
    """
    return {
        **{name: proportion.share for name, proportion in counted.items()},
        "exact_match_n": counted["exact_match"].n,
        "samples": [
            {"figure": name, "n": proportion.n, "low": proportion.interval[0], "high": proportion.interval[1]}
            for name, proportion in counted.items()
        ],
    }


def table(groups: Mapping[str, Sequence[Prediction]]) -> list[dict[str, Any]]:
    """A line a group: its name, exact match, n, and the bounds of the interval."""
    return [
        {
            "name": name,
            "exact_match": found.share,
            "n": found.n,
            "low": found.interval[0],
            "high": found.interval[1],
        }
        for name, found in ((name, exact_match(group)) for name, group in groups.items())
    ]
