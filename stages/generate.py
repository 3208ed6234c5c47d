"""Generate: command lines with one mistake each and their correction, and correct ones that stay as they are.

In: `data/grammar/*.json`, the tables in `data/*.yaml`, `data/popularity.json`, the golden cases (which no row may
repeat); params `task`, `data` and `seed`.
Out: `data/generated.jsonl`, one row a line (`messages` and `meta`), shares exact by shell and family.
Alone: `python -m stages.generate`

Every row has its own random numbers, seeded by its shell, family and index, so that a row depends on no other of
its shell but for duplicates, and the file is the same byte for byte for the same seed and tables. The shells are
made side by side, one process each.
"""

from __future__ import annotations

import gc
import multiprocessing
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from tqdm import tqdm

from stages.common import config
from stages.common.chat import CORRECT, system_prompt, user_text
from stages.common.cli import run_stage
from stages.common.errors import PipelineError
from stages.common.files import replace_file, scratch_directory
from stages.common.golden import golden_inputs
from stages.common.grammar import Grammar, build_grammars
from stages.common.paths import GENERATED
from stages.common.processes import die_with_parent, worker_pool
from stages.generating.rows import Example, ShellGenerator
from stages.generating.tables import Tables, read_tables

_REPORT_EVERY = 500
"""Rows between two movements of the progress bar."""


def quotas(rows: int, shells: Mapping[str, float], families: Mapping[str, float]) -> dict[tuple[str, str], int]:
    """How many rows each (shell, family) gets: largest remainders, so that they add up to `rows`."""
    exact = {(s, f): rows * a * b for s, a in shells.items() for f, b in families.items()}
    counts = {key: int(value) for key, value in exact.items()}
    by_remainder = sorted(exact, key=lambda key: (counts[key] - exact[key], key))
    for key in by_remainder[: rows - sum(counts.values())]:
        counts[key] += 1
    return counts


def generate(
    tables: Tables, params: config.DataParams, seed: int, task: str = CORRECT
) -> Iterator[dict[str, Any]]:
    """Yield the rows of all shells. Raises `PipelineError` when a family cannot fill its quota in a shell."""
    for grammar in build_grammars(params.shells, tables.grammars).values():
        yield from generate_shell(grammar, tables, params, seed, task)


def generate_shell(
    grammar: Grammar, tables: Tables, params: config.DataParams, seed: int, task: str
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one shell, family by family. Raises as `generate` does."""
    generator = ShellGenerator(grammar, tables, params, seed, golden_inputs(), task)
    for (of_shell, family), count in quotas(params.rows, params.shells, params.families).items():
        if of_shell != grammar.shell:
            continue
        for index in range(count):
            example = generator.example(family, index)
            if example is None:
                raise PipelineError(
                    f"data: family {family} in {of_shell}: only {index} of {count} rows could be made without "
                    "repetition; add lines to the tables in data/, or lower data.rows or the share in params.yaml"
                )
            yield as_row(task, of_shell, family, example)


def as_row(task: str, shell: str, family: str, example: Example) -> dict[str, Any]:
    """The row of one example: three messages and what it is."""
    accept = {"accept": list(example.accept)} if example.accept else {}
    return {
        "messages": [
            {"role": "system", "content": system_prompt(shell, task)},
            {"role": "user", "content": user_text(task, example.typed, example.results)},
            {"role": "assistant", "content": example.answer},
        ],
        "meta": {
            "shell": shell,
            "family": family,
            "kind": example.kind,
            "tool": example.tool,
            "source": example.source,
            "group": example.group,
            **accept,
        },
    }


@dataclass(frozen=True)
class Work:
    """What all workers share: they are forked, so that none reads the tables for itself."""

    tables: Tables
    grammars: Mapping[str, Grammar]
    made: Any
    """How many rows all of them have made."""


_work: Work | None = None
"""In a worker: what it has of its parent."""


def _start_worker(work: Work) -> None:
    global _work
    _work = work
    die_with_parent()


def _write_shell(shell: str, params: config.DataParams, seed: int, task: str, out: Path) -> None:
    """Write one shell's rows to `out`, in a worker."""
    gc.disable()  # nothing here holds cycles, and the tables are large to look through again and again
    assert _work is not None
    rows = generate_shell(_work.grammars[shell], _work.tables, params, seed, task)
    with out.open("wb") as file:
        for number, row in enumerate(rows, start=1):
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            if number % _REPORT_EVERY == 0:
                with _work.made.get_lock():
                    _work.made.value += _REPORT_EVERY


def write_shells(params: config.DataParams, seed: int, task: str, folder: Path) -> list[Path]:
    """A file of rows a shell, made side by side, the longest first; the files in the order of the shells."""
    tables, context = read_tables(), multiprocessing.get_context("fork")
    work = Work(tables, build_grammars(params.shells, tables.grammars), context.Value("q", 0))
    files = {shell: folder / f"{shell}.jsonl" for shell in params.shells}
    with (
        worker_pool(_start_worker, (work,)) as pool,
        tqdm(total=params.rows, desc="rows", unit="row") as bar,
    ):
        longest_first = sorted(files, key=lambda shell: -params.shells[shell])
        running: set[Future[None]] = {
            pool.submit(_write_shell, shell, params, seed, task, files[shell]) for shell in longest_first
        }
        while running:
            done, running = wait(running, timeout=0.5)
            bar.update(work.made.value - bar.n)
            for future in done:
                future.result()
        bar.update(params.rows - bar.n)
    return list(files.values())


def main() -> None:
    """Write `data/generated.jsonl`."""
    with scratch_directory(GENERATED.with_name("shells")) as scratch:
        files = write_shells(config.data_params(), config.seed(), config.task(), scratch)
        with replace_file(GENERATED, "wb") as out:
            for path in files:
                with path.open("rb") as part:
                    shutil.copyfileobj(part, out)


if __name__ == "__main__":
    run_stage("generate", main)
