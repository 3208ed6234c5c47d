"""Stage `train`: a LoRA adapter for the base, trained by `kaggle/train_lora.py` here or on Kaggle.

In: models/<size>/base, data/dataset/train.jsonl and valid.jsonl, `train` and `left_as_typed` of
configs/<model_size>.yaml, `seed`, `task`.
Out: models/<size>/<task>/adapter (peft's format, and digests.json), metrics/<size>/<task>/train.json,
plots/<size>/<task>/train/loss.csv and valid.csv. Checkpoints lie in .cache/checkpoints until the run is finished.

    python -m stages.train                                              the stage's command
    python -m stages.train submit | wait | status | cancel | fetch      the steps of a run on Kaggle

The trainer is a program of its own: it gets paths and settings, and knows nothing of this repository. So the rows
of families that a size is not meant to answer (`left_as_typed`) get the typed line as their answer here. Where it
runs is `backend` in params.yaml or TRAIN_BACKEND (stages/common/config.py): not part of what is trained.
"""

import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from stages.common import paths
from stages.common.chat import parse_user_text
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
from stages.common.files import read_jsonl, replace_file, write_json
from stages.common.paths import ModelPaths


def left_alone(row: dict[str, Any], families: Collection[str], task: str) -> dict[str, Any]:
    """The row with the typed line as its answer if it is of one of `families`, else the row itself.

    With families ("request",) the answer to `show running processes` becomes `show running processes`.
    """
    if row["meta"]["family"] not in families:
        return row
    system, user, answer = row["messages"]
    typed, _ = parse_user_text(task, user["content"])
    return {**row, "messages": [system, user, {**answer, "content": typed}]}


def dataset_of(model: ModelPaths, families: Collection[str]) -> Path:
    """The folder of train.jsonl and valid.jsonl for a model that leaves `families` as typed.

    It is the dataset itself, or where there are such families a copy in .cache/datasets with other answers.
    """
    if not families:
        return paths.DATASET
    folder = paths.CACHE / "datasets" / f"{model.size}-{model.task}"
    for path in (paths.TRAIN, paths.VALID):
        with replace_file(folder / path.name) as out:
            for _, row in read_jsonl(path):
                line = json.dumps(left_alone(row, families, model.task), ensure_ascii=False, separators=(",", ":"))
                out.write(line + "\n")
    return folder


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
    model = model_paths()
    dataset = dataset_of(model, left_as_typed())
    return model, describe_run(model, size_card(), train_config(), dataset, seed(), paths.CACHE / "checkpoints")


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
