"""Stage `train`: a LoRA adapter for the base, trained by `kaggle/train_lora.py` here or on Kaggle.

In: models/<size>/base, data/dataset/train.jsonl and valid.jsonl, data/promised.yaml, `train`, `train_of` and
`left_as_typed` of configs/<model_size>.yaml, `seed`, `task`.
Out: models/<size>/<task>/adapter (peft's format, and digests.json), metrics/<size>/<task>/train.json,
plots/<size>/<task>/train/loss.csv and valid.csv. Checkpoints lie in .cache/checkpoints until the run is finished.

    python -m stages.train                                              the stage's command
    python -m stages.train submit | wait | status | cancel | fetch      the steps of a run on Kaggle

The trainer is a program of its own: it gets paths and settings, and knows nothing of this repository. So what it
is to learn from is laid out in .cache/datasets (stages/common/lessons.py): the rows that it sees, drawn from the
dataset, with the answers that this size is meant to give, and the promised lines.

Where it runs is `backend` in params.yaml or TRAIN_BACKEND (stages/common/config.py): not part of what is trained.
"""

import sys
from pathlib import Path

from stages.common import paths
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
from stages.common.files import write_json
from stages.common.lessons import lay_out
from stages.common.paths import ModelPaths
from stages.common.promised import promises


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
    dataset = lay_out(model, left_as_typed(), promises(), settings.examples, seed())
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
