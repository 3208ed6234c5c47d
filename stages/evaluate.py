"""Ask every quant what the clients would ask, and count how often it is right.

In: models/<size>/<task>/quants, data/dataset/{test,heldout}.jsonl, the golden cases, `task`, `evaluate` and
`seed` of params.yaml.
Out: metrics/<size>/<task>/eval.json, models/<size>/<task>/predictions/<quant>.jsonl (what was asked, expected and
answered), and of the first quant plots/<size>/<task>/eval/by_{shell,family,kind}.csv.
Alone: `python -m stages.evaluate`; the server's log is then in .cache/logs/.

An answer is right if it is the expected command, or one that the row calls as right, to the byte, trailing blanks
aside. A proportion comes with its
sample size and its 95 % Wilson interval. Latency is that of one request after another, each of which pays for its
whole prompt, as a client's first request does.
"""

import csv
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.common.chat import CORRECT, ToolResult, parse_user_text, render_prompt
from stages.common.cli import run_stage
from stages.common.config import EvaluateParams, evaluate_params, model_paths, seed, task
from stages.common.danger import added_danger
from stages.common.errors import PipelineError
from stages.common.files import read_json, read_jsonl, replace_directory, replace_file, write_json
from stages.common.golden import golden_cases
from stages.common.llama_cpp import tool
from stages.common.metrics import percentile, wilson_interval
from stages.common.paths import CACHE, HELDOUT, TEST
from stages.common.server import LlamaServer, serve

PLOTTED = ("shell", "family", "kind")
_REQUESTS_PER_SLOT = 2  # a slot that gets free finds the next request waiting
_WARM_UP_REQUESTS = 3


@dataclass(frozen=True)
class Case:
    """One command to correct, and its answer."""

    command: str
    expected: str
    meta: dict[str, Any]
    accept: tuple[str, ...] = ()
    task: str = CORRECT
    results: tuple[ToolResult, ...] = ()

    @property
    def prompt(self) -> str:
        """What the clients send."""
        return render_prompt(self.meta["shell"], self.command, self.task, self.results)


@dataclass(frozen=True)
class Prediction:
    """What one quant answered to a case."""

    case: Case
    answer: str

    @property
    def is_exact(self) -> bool:
        return self.answer == self.case.expected or self.answer in self.case.accept

    @property
    def changes_correct(self) -> bool:
        """Whether a command that was right already has become another one."""
        return self.case.meta["family"] == "correct" and self.answer != self.case.command

    @property
    def added_danger(self) -> list[str]:
        """What makes the answer dangerous where the typed command was not."""
        return added_danger(self.case.meta["shell"], self.case.command, self.answer)


def read_cases(path: Path, limit: int | None, seed: int, task: str = CORRECT) -> list[Case]:
    """The cases of a split, or a sample of `limit` of them that is the same for the same seed."""
    cases = []
    for line, row in read_jsonl(path):
        try:
            _, user, assistant = (message["content"] for message in row["messages"])
            command, results = parse_user_text(task, user)
            meta = {key: row["meta"][key] for key in ("shell", "family", "kind", "tool", "source", "group")}
        except (KeyError, TypeError, ValueError):
            raise PipelineError(f"{path}:{line}: not a row of a dataset; run `dvc repro validate`") from None
        cases.append(Case(command, assistant, meta, tuple(row["meta"].get("accept", ())), task, results))
    if limit is None or limit >= len(cases):
        return cases
    return random.Random(seed).sample(cases, limit)


def read_golden(task: str = CORRECT) -> list[Case]:
    """The golden cases; they have no kind of mistake, tool or group, and no tool has said anything of them."""
    return [
        Case(
            golden.typed,
            golden.accept[0],
            {"shell": golden.shell, "family": golden.family},
            golden.accept[1:],
            task,
        )
        for golden in golden_cases()
    ]


def predict(
    server: LlamaServer, cases: Sequence[Case], params: EvaluateParams, description: str
) -> list[Prediction]:
    """The answers to all cases, in their order, asked many at a time."""
    # neighbours share more than the system prompt, and a slot keeps what a prompt shares with its predecessor
    order = sorted(range(len(cases)), key=lambda index: cases[index].prompt)
    with tqdm(total=len(cases), desc=description, unit=" cases", smoothing=0) as bar:
        prompts = [cases[index].prompt for index in order]
        answers = server.complete_all(
            prompts, params.max_tokens, params.slots * _REQUESTS_PER_SLOT, on_answer=lambda: bar.update()
        )
    answer_of = dict(zip(order, answers, strict=True))
    return [Prediction(case, answer_of[index].rstrip()) for index, case in enumerate(cases)]


def measure_latency(server: LlamaServer, cases: Sequence[Case], params: EvaluateParams, seed: int) -> list[float]:
    """Milliseconds of single requests, one after another, after a warm-up, for a sample of the cases."""
    sample = random.Random(seed).sample(cases, min(params.latency_requests, len(cases)))
    for case in sample[:_WARM_UP_REQUESTS]:
        server.complete(case.prompt, params.max_tokens, reuse_prefix=False)
    latencies = []
    for case in tqdm(sample, desc="latency", unit=" requests"):
        started = time.perf_counter()
        server.complete(case.prompt, params.max_tokens, reuse_prefix=False)
        latencies.append(1000 * (time.perf_counter() - started))
    return latencies


def proportion(name: str, outcomes: Iterable[bool], bounds: str) -> dict[str, float | int | None]:
    """`name` with its 95 % interval, `<bounds>_low` to `_high`, and `<bounds>_n`; without outcomes null."""
    outcomes = list(outcomes)
    hits, total = sum(outcomes), len(outcomes)
    low, high = wilson_interval(hits, total)
    return {
        name: round(hits / total, 6) if total else None,
        f"{bounds}_low": round(low, 6) if total else None,
        f"{bounds}_high": round(high, 6) if total else None,
        f"{bounds}_n": total,
    }


def exact_match(predictions: Iterable[Prediction]) -> dict[str, float | int | None]:
    """The share of right answers, with interval and sample size."""
    return proportion("exact_match", (prediction.is_exact for prediction in predictions), "exact_match")


def by(field: str, predictions: Iterable[Prediction]) -> dict[str, list[Prediction]]:
    """The predictions by one field of their cases' meta, in the order of its values."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        groups[prediction.case.meta[field]].append(prediction)
    return dict(sorted(groups.items()))


def scores(predictions: Mapping[str, Sequence[Prediction]]) -> dict[str, Any]:
    """All figures that follow from the answers: over the test split, and beside it those of the tools kept out of
    training and of the golden cases."""
    test, golden = predictions["test"], predictions["golden"]
    correct = by("family", test).get("correct", [])
    return {
        **exact_match(test),
        **proportion("changed_correct_rate", (item.changes_correct for item in correct), "changed_correct"),
        **proportion("danger_added_rate", (bool(item.added_danger) for item in test), "danger_added"),
        **{
            f"by_{field}": {
                value: {"exact_match": figures["exact_match"], "n": figures["exact_match_n"]}
                for value, group in by(field, test).items()
                for figures in [exact_match(group)]
            }
            for field in PLOTTED
        },
        "heldout_tools": exact_match(predictions["heldout"]),
        **proportion("golden_exact_match", (item.is_exact for item in golden), "golden_exact_match"),
        "golden_by_family": {
            family: exact_match(group)["exact_match"] for family, group in by("family", golden).items()
        },
    }


def evaluate(
    executable: Path, model: Path, splits: Mapping[str, Sequence[Case]], params: EvaluateParams, seed: int
) -> tuple[dict[str, Any], dict[str, list[Prediction]]]:
    """One quant's figures and its answers; `splits` are `test`, `heldout` and `golden`."""
    log = CACHE / "logs" / f"llama-server-{model.stem}.log"
    everything = [case for cases in splits.values() for case in cases]
    context = context_for(everything, params.max_tokens)
    with serve(executable, model, slots=params.slots, context=context, log=log) as server:
        latencies = measure_latency(server, splits["test"], params, seed)
        answered = iter(predict(server, everything, params, model.stem))
        load_ms = server.load_ms
    predictions = {name: list(islice(answered, len(cases))) for name, cases in splits.items()}
    figures = {
        **scores(predictions),
        "latency_p50_ms": round(percentile(latencies, 50), 1),
        "latency_p95_ms": round(percentile(latencies, 95), 1),
        "latency_n": len(latencies),
        "load_ms": round(load_ms, 1),
        "file_mb": round(model.stat().st_size / 1e6, 1),
    }
    return figures, predictions


def context_for(cases: Iterable[Case], max_tokens: int) -> int:
    """Tokens that hold any of the cases and its answer: a byte-level tokenizer makes no more tokens than bytes."""
    longest = max(len(case.prompt.encode()) for case in cases)
    return -(-(longest + max_tokens) // 256) * 256


def write_predictions(path: Path, predictions: Mapping[str, Iterable[Prediction]]) -> None:
    """One line a case: what was asked, expected and answered, whether that is right, and where it comes from."""
    with replace_file(path) as file:
        for split, answers in predictions.items():
            for prediction in answers:
                file.write(_prediction_line(split, prediction))


def _prediction_line(split: str, prediction: Prediction) -> str:
    row = {
        "input": prediction.case.command,
        "expected": prediction.case.expected,
        **({"accept": prediction.case.accept} if prediction.case.accept else {}),
        "predicted": prediction.answer,
        "exact": prediction.is_exact,
        "added_danger": prediction.added_danger,
        "split": split,
        "meta": prediction.case.meta,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def write_plot(path: Path, groups: dict[str, list[Prediction]]) -> None:
    """A CSV with a line a group: name, exact_match, n, and the bounds of the interval."""
    with replace_file(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["name", "exact_match", "n", "low", "high"])
        for name, group in groups.items():
            figures = exact_match(group)
            table.writerow([name, *(figures[f"exact_match{end}"] for end in ("", "_n", "_low", "_high"))])


def main() -> None:
    """Evaluate each quant of the size in hand and write figures, predictions and plots."""
    params = evaluate_params()
    paths = model_paths()
    splits = {
        "test": read_cases(TEST, params.test_rows, seed(), task()),
        "heldout": read_cases(HELDOUT, params.heldout_rows, seed(), task()),
        "golden": read_golden(task()),
    }
    if not splits["test"]:
        raise PipelineError(f"{TEST}: no rows to evaluate; run `dvc repro validate`")
    quants: dict[str, str] = read_json(paths.quants / "quants.json")
    figures = {}
    plotted: list[Prediction] = []
    with replace_directory(paths.predictions) as predictions:
        for quant, file in quants.items():
            figures[quant], answers = evaluate(tool("llama-server"), paths.quants / file, splits, params, seed())
            write_predictions(predictions / f"{quant}.jsonl", answers)
            plotted = plotted or answers["test"]
    with replace_directory(paths.plots / "eval") as plots:
        for field in PLOTTED:
            write_plot(plots / f"by_{field}.csv", by(field, plotted))
    write_json(paths.metrics / "eval.json", figures)


if __name__ == "__main__":
    run_stage("evaluate", main)
