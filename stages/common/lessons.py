"""What a training run is taught: rows drawn from the dataset, and the promised lines.

In: data/dataset/train.jsonl and valid.jsonl, data/promised.yaml. Out: .cache/datasets/<size>-<task>, files of chat
rows, of which a run sees each once where it sees fewer examples than there are rows.
"""

import json
import random
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from stages.common import paths
from stages.common.chat import as_taught, system_prompt, user_text
from stages.common.errors import PipelineError
from stages.common.files import read_jsonl, replace_file
from stages.common.paths import ModelPaths
from stages.common.promised import Promises


def promised_rows(promised: Promises, task: str, copies: int) -> Iterator[dict[str, Any]]:
    """`copies` rows of each promised line."""
    for shell, line in promised.in_shells():
        contents = system_prompt(shell, task), user_text(task, line.typed), line.answer
        turns = zip(("system", "user", "assistant"), contents, strict=True)
        row = {"messages": [{"role": role, "content": content} for role, content in turns]}
        yield from [row] * copies


def lessons(
    rows: Sequence[dict[str, Any]], promised: Promises, task: str, examples: int, seed: int
) -> list[dict[str, Any]]:
    """The rows that a run of `examples` goes through, drawn by the seed; again and again where they are fewer.

    A promised line is seen `promised.seen` times in all: so often in a run that sees every row once at most, less
    often an epoch in a longer one, but once.
    """
    copies = max(1, round(promised.seen * min(1, len(rows) / examples)))
    taught = list(promised_rows(promised, task, copies))
    count = max(1, examples - len(taught))
    drawn = rows if count >= len(rows) else random.Random(seed).sample(rows, count)
    return [*drawn, *taught]


def lay_out(model: ModelPaths, families: Collection[str], promised: Promises, examples: int, seed: int) -> Path:
    """Write train.jsonl and valid.jsonl for a run that sees `examples`; returns their folder.

    `families` are those whose lines the size in hand is to leave as typed. Raises what `read_as_taught` raises.
    """
    folder = paths.CACHE / "datasets" / f"{model.size}-{model.task}"
    for path in (paths.TRAIN, paths.VALID):
        rows = read_as_taught(path, model.task, families)
        if path == paths.TRAIN:
            rows = lessons(rows, promised, model.task, examples, seed)
        with replace_file(folder / path.name) as out:
            out.writelines(map(_as_line, rows))
    return folder


def read_as_taught(path: Path, task: str, families: Collection[str]) -> list[dict[str, Any]]:
    """The rows of a split, with the typed line as the answer of those of `families`.

    Raises:
        PipelineError: a line is no row; it names the line.
    """
    rows = []
    for line, row in read_jsonl(path):
        try:
            rows.append(as_taught(row, task, families))
        except (KeyError, TypeError, ValueError):
            raise PipelineError(f"{path}:{line}: not a row of a dataset; run `dvc repro validate`") from None
    return rows


def _as_line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
