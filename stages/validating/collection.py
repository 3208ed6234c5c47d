"""The rules that rows keep together: no duplicate, no contradiction, the shares and the size asked for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path

from stages.common.golden import golden_inputs
from stages.validating.answers import runs_one_of
from stages.validating.limits import limits
from stages.validating.rows import Finding, Row


def find_duplicates(rows: Sequence[Row]) -> Iterator[Finding]:
    """Every row whose task, shell, typed line, tools' results and answer stand in an earlier row."""
    first: dict[tuple[object, ...], Row] = {}
    for row in rows:
        earlier = first.setdefault((row.task, row.shell, row.before, row.results, row.after), row)
        if earlier is not row:
            yield row.finding("duplicate", f"the same as {earlier.file}:{earlier.line}")


def find_contradictions(rows: Sequence[Row]) -> Iterator[Finding]:
    """Every row whose typed line (and what tools said of it) has another answer in another row of the shell."""
    by_input: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        by_input[row.question].append(row)
    for same in by_input.values():
        if len({row.after for row in same}) < 2:
            continue
        for row in same:
            other = next(other for other in same if other.after != row.after)
            yield row.finding("contradiction", f"{other.file}:{other.line} answers {other.after!r}")


def exact_match_ceiling(test: Sequence[Row], rows: Iterable[Row]) -> float:
    """The share (0 to 1) of test rows that somebody who knew all rows could answer.

    They give each question the answer that most of its rows have.
    """
    answers: dict[tuple[object, ...], Counter[str]] = {row.question: Counter() for row in test}
    for row in rows:
        if row.question in answers:
            answers[row.question][row.after] += 1
    best = {question: counts.most_common(1)[0][0] for question, counts in answers.items()}
    return sum(best[row.question] in row.answers for row in test) / max(len(test), 1)


def find_golden(rows: Sequence[Row]) -> Iterator[Finding]:
    """Every row whose typed line a golden case has, in whatever shell: a model must not have seen those."""
    golden = golden_inputs()
    for row in rows:
        if row.asked[1].rstrip("; ") in golden or row.asked[1] in golden:
            yield row.finding("golden", "a golden case is typed so; drop the row")


def find_leaks(rows: Sequence[Row], kept_back: Sequence[Row], heldout_tools: Sequence[str]) -> Iterator[Finding]:
    """Every row that a model must not be trained on.

    It asks what a row of `kept_back` (test and held-out rows) asks, differs from one in particulars alone, or runs
    a tool kept out of training.
    """
    asked = {row.asked: row for row in kept_back}
    skeletons = {row.skeleton: row for row in kept_back}
    runs_heldout = runs_one_of(heldout_tools)
    for row in rows:
        if other := asked.get(row.asked) or skeletons.get(row.skeleton):
            yield row.finding(
                "split", f"{other.file}:{other.line} keeps this line back, or one like it; drop the row"
            )
        elif runs_heldout(row.after):
            yield row.finding(
                "split", "runs a tool that is kept out of training (data.heldout_tools); drop the row"
            )


def check_shares(file: Path, rows: Sequence[Row], wanted: Mapping[str, Mapping[str, float]]) -> Iterator[Finding]:
    """`wanted` holds, for a key of `meta`, the share of each value; half a point either way is allowed."""
    for key, shares in wanted.items():
        counts = Counter(str(row.meta.get(key)) for row in rows)
        for value in sorted({*shares, *counts}):
            share, target = counts[value] / max(len(rows), 1), shares.get(value, 0.0)
            # in a small set one row is more than half a point
            if abs(share - target) > max(limits().share_tolerance, 1 / max(len(rows), 1)):
                message = f"{share:.2%} of the rows have {key} {value}, {target:.2%} are asked for"
                yield Finding(file, 0, "shares", message, f"{counts[value]} of {len(rows)} rows")


def check_operators(file: Path, rows: Sequence[Row]) -> Iterator[Finding]:
    """Chained answers have each operator in the share that is wanted; a few of them say nothing about that."""
    chained = [row.operators for row in rows if row.operators]
    if len(chained) < limits().operator_rows_any:
        return
    counts = Counter(chain.from_iterable(chained))
    for name, target in limits().operator_shares.items():
        share = counts[name] / len(chained)
        if abs(share - target) > limits().operator_tolerance:
            message = (
                f"{share:.2%} of the answers with an operator have {name}, {target:.2%} are asked for; mend "
                "data/chains.yaml, or `operators` in data/validation.yaml if it is meant"
            )
            yield Finding(file, 0, "shares", message, f"{counts[name]} of {len(chained)} answers")


def check_repetition(rows: Sequence[Row]) -> Iterator[Finding]:
    """No line, whatever its particulars, is in too many of the rows."""
    most = max(limits().skeleton_share_max * len(rows), limits().skeleton_rows_any)
    counts = Counter(map(attrgetter("skeleton"), rows))
    for skeleton in [skeleton for skeleton, count in counts.items() if count > most]:
        row = next(row for row in rows if row.skeleton == skeleton)
        yield row.finding("repetition", f"one of {counts[skeleton]} rows that are this line; {most:.0f} may be")


def check_size(file: Path, rows: Sequence[Row], asked: int) -> Iterator[Finding]:
    """As many rows as were asked for."""
    if len(rows) < asked:
        yield Finding(file, 0, "size", f"too few rows; {asked} (data.rows) are asked for", f"{len(rows)} rows")
