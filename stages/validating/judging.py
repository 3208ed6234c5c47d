"""Read rows and hold each to the rules, a stretch of lines at a time, on all cores."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from tqdm import tqdm

from stages.common.errors import PipelineError
from stages.common.processes import die_with_parent, worker_pool
from stages.validating.rows import Finding, Row, parse_line
from stages.validating.rules import check_row

STRETCH = 4000
"""Lines that a process judges at a time."""
_WAITING = 3
"""Stretches a core that are read ahead, so that none waits for the next."""


@dataclass(frozen=True)
class Stretch:
    """Some lines of a file, from line `first` on."""

    file: Path
    first: int
    lines: Sequence[bytes]


def stretches(files: Iterable[Path]) -> Iterator[Stretch]:
    """The lines of the files."""
    for file in files:
        with file.open("rb") as lines:
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
        _ = parsed.asked, parsed.skeleton, parsed.operators  # worked out here, on all cores, and kept in the row
        rows.append(parsed)
    return rows, findings


def read_and_judge(files: Sequence[Path], max_chars: int) -> tuple[list[Row], list[Finding]]:
    """All rows of the files in their order, and every finding about a single line.

    Raises:
        PipelineError: a file is not there or is none.
    """
    for file in files:
        try:
            if not stat.S_ISREG(file.stat().st_mode):
                raise PipelineError(f"{file}: is no file; name a file of rows, or remove it")
        except FileNotFoundError:
            raise PipelineError(
                f"{file}: not there; run `dvc repro`, which makes it, or name another file"
            ) from None
    rows: list[Row] = []
    findings: list[Finding] = []
    work = stretches(files)
    first = list(_until_long(work))
    if sum(len(stretch.lines) for stretch in first) <= STRETCH:
        judged = (judge(stretch, max_chars) for stretch in first)
    else:
        judged = _judge_on_all_cores(chain(first, work), sum(map(_size, files)), max_chars)
    with closing(judged):  # after a Ctrl-C as well, which comes while the pool waits for the next turn
        for of_stretch, found in judged:
            rows += of_stretch
            findings += found
    return rows, findings


def _until_long(work: Iterator[Stretch]) -> Iterator[Stretch]:
    """The first stretches, until they are more than one process should judge."""
    lines = 0
    while lines <= STRETCH and (stretch := next(work, None)):
        lines += len(stretch.lines)
        yield stretch


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _judge_on_all_cores(
    work: Iterator[Stretch], size: int, max_chars: int
) -> Iterator[tuple[list[Row], list[Finding]]]:
    """What `judge` says of each stretch, in their order, a few of them in memory at a time; `size` is in bytes."""
    cores = os.cpu_count() or 1
    running: deque[tuple[int, Future[tuple[list[Row], list[Finding]]]]] = deque()
    with (
        worker_pool(die_with_parent) as pool,  # forked, so that each has the tables that this process has read
        tqdm(total=size or None, desc="rows judged", unit="B", unit_scale=True) as bar,
    ):

        def start(count: int) -> None:
            for stretch in islice(work, count):
                running.append((sum(map(len, stretch.lines)), pool.submit(judge, stretch, max_chars)))

        start(cores * _WAITING)
        while running:
            read, judged = running.popleft()
            yield judged.result()
            bar.update(read)
            start(1)
