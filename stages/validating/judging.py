"""Read rows and hold each to the rules, a stretch of lines at a time, on all cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from stages.common.errors import PipelineError
from stages.common.processes import die_with_parent
from stages.validating.rows import Finding, Row, parse_line
from stages.validating.rules import check_row

STRETCH = 4000
"""Lines that a process judges at a time."""


@dataclass(frozen=True)
class Stretch:
    """Some lines of a file, from line `first` on."""

    file: Path
    first: int
    lines: Sequence[bytes]


def stretches(files: Iterable[Path]) -> Iterator[Stretch]:
    """The lines of the files.

    Raises:
        PipelineError: a file is not there.
    """
    for file in files:
        try:
            lines = file.open("rb")
        except FileNotFoundError:
            raise PipelineError(
                f"{file}: not there; run `dvc repro`, which makes it, or name another file"
            ) from None
        with lines:
            first = 1
            while taken := list(islice(lines, STRETCH)):
                yield Stretch(file, first, taken)
                first += len(taken)


def judge(stretch: Stretch, max_chars: int) -> tuple[list[Row], list[Finding]]:
    """The rows of some lines, and what is wrong with each by itself."""
    rows: list[Row] = []
    findings: list[Finding] = []
    for number, line in enumerate(stretch.lines, start=stretch.first):
        parsed = parse_line(stretch.file, number, line)
        if isinstance(parsed, Finding):
            findings.append(parsed)
            continue
        findings.extend(check_row(parsed, max_chars))
        _ = parsed.asked, parsed.skeleton  # worked out here, on all cores, and kept in the row
        rows.append(parsed)
    return rows, findings


def read_and_judge(files: Sequence[Path], max_chars: int) -> tuple[list[Row], list[Finding]]:
    """All rows of the files in their order, and every finding about a single line."""
    rows: list[Row] = []
    findings: list[Finding] = []
    for judged, found in _judge_all(list(stretches(files)), max_chars):
        rows += judged
        findings += found
    return rows, findings


def _judge_all(work: Sequence[Stretch], max_chars: int) -> Iterator[tuple[list[Row], list[Finding]]]:
    total = sum(len(stretch.lines) for stretch in work)
    if total <= STRETCH:
        yield from (judge(stretch, max_chars) for stretch in work)
        return
    # a forked process has the tables that this one has read
    context = multiprocessing.get_context("fork")
    with (
        ProcessPoolExecutor(os.cpu_count(), mp_context=context, initializer=die_with_parent) as pool,
        tqdm(total=total, desc="rows judged", unit="row") as bar,
    ):
        for stretch, judged in zip(work, pool.map(judge, work, [max_chars] * len(work)), strict=True):
            bar.update(len(stretch.lines))
            yield judged
