"""Stage `train`: a LoRA adapter for the base, trained by `kaggle/train_lora.py` here or on Kaggle.

In: models/<size>/base, data/dataset/train.jsonl and valid.jsonl, data/promised.yaml, `train`, `train_of` and
`left_as_typed` of configs/<model_size>.yaml, `seed`, `task`.
Out: models/<size>/<task>/adapter (peft's format, and digests.json), metrics/<size>/<task>/train.json,
plots/<size>/<task>/train/loss.csv and valid.csv. Checkpoints lie in .cache/checkpoints until the run is finished.

    python -m stages.train                                              the stage's command
    python -m stages.train submit | wait | status | cancel | fetch      the steps of a run on Kaggle

The trainer is a program of its own: it gets paths and settings, and knows nothing of this repository. So what it
is to learn from is laid out here, in .cache/datasets: the rows of families that a size is not meant to answer
(`left_as_typed`) get the typed line as their answer, and the promised lines are put among the rows.

Where it runs is `backend` in params.yaml or TRAIN_BACKEND (stages/common/config.py): not part of what is trained.
"""

import json
import sys
from collections.abc import Collection, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

from stages.common import paths
from stages.common.chat import as_taught, system_prompt, user_text
from stages.common.cli import run_stage
from stages.common.config import (
    ModelCard,
    TrainConfig,
    backend,
    left_as_typed,
    model_paths,
    seed,
    size_card,
    train_config,
)
from stages.common.errors import PipelineError
from stages.common.files import read_jsonl, replace_file, write_json
from stages.common.paths import ModelPaths
from stages.common.promised import Promises, promises


def promised_rows(promised: Promises, task: str, rows: int, examples: int) -> Iterator[dict[str, Any]]:
    """Rows of the promised lines, as many of each as make a run that sees `examples` see it `promised.seen` times.

    Beside 132,000 rows of which a run sees 24,000, a line that is to be seen 5 times is there 28 times.
    """
    copies = max(1, round(promised.seen * rows / examples))
    for shell, line in promised.in_shells():
        contents = system_prompt(shell, task), user_text(task, line.typed), line.answer
        turns = zip(("system", "user", "assistant"), contents, strict=True)
        yield from repeat({"messages": [{"role": role, "content": content} for role, content in turns]}, copies)


def lay_out_dataset(model: ModelPaths, families: Collection[str], promised: Promises, examples: int) -> Path:
    """Write train.jsonl and valid.jsonl for a run that sees `examples`; returns their folder.

    Raises:
        PipelineError: a line of the dataset is no row; it names the line.
    """
    folder = paths.CACHE / "datasets" / f"{model.size}-{model.task}"
    for path in (paths.TRAIN, paths.VALID):
        rows = []
        for line, row in read_jsonl(path):
            try:
                rows.append(as_taught(row, model.task, families))
            except (KeyError, TypeError, ValueError):
                raise PipelineError(f"{path}:{line}: not a row of a dataset; run `dvc repro validate`") from None
        if path == paths.TRAIN:
            rows += promised_rows(promised, model.task, len(rows), examples)
        with replace_file(folder / path.name) as out:
            out.writelines(map(as_line, rows))
    return folder


def as_line(row: dict[str, Any]) -> str:
    """The row as a line of JSONL."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def describe_run(
    model: ModelPaths, card: ModelCard, settings: TrainConfig, dataset: Path, seed_value: int, checkpoints: Path
) -> dict[str, object]:
    """What the trainer is told (`kaggle/run_files.py`, `Run`)."""
    return {
        "base": str(model.base),
        "base_name": card.base_model_repo or card.base_model_name,
        "dataset": str(dataset),
        "adapter": str(model.adapter),
        "metrics": str(model.metrics / "train.json"),
        "plots": str(model.plots / "train"),
        "checkpoints": str(checkpoints),
        "seed": seed_value,
        "settings": settings.model_dump(mode="json"),
    }


def describe() -> tuple[ModelPaths, dict[str, object]]:
    """The model in hand and its run."""
    model, settings = model_paths(), train_config()
    dataset = lay_out_dataset(model, left_as_typed(), promises(), settings.examples)
    return model, describe_run(model, size_card(), settings, dataset, seed(), paths.CACHE / "checkpoints")


def main() -> None:
    """Train where the backend says."""
    model, description = describe()
    if backend() == "kaggle":
        # the client is no dependency of those who train here
        from stages.training.bundles import describe_cloud_run
        from stages.training.cloud import train_on_kaggle

        train_on_kaggle(describe_cloud_run(model, description))
    else:
        from stages.training.local import train_locally

        path = paths.CACHE / f"train-{model.size}-{model.task}.json"
        write_json(path, description)
        train_locally(path)


if __name__ == "__main__":
    if sys.argv[1:]:
        from stages.training import commands
        from stages.training.bundles import describe_cloud_run

        commands.main(sys.argv[1:], lambda: describe_cloud_run(*describe()))
    else:
        run_stage("train", main)
