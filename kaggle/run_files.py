"""The files of a training run: the description it is started with, and the results it leaves.

In: a JSON file with the fields of `Run`. Out: the adapter directory with `digests.json`, metrics JSON, loss curves
(`loss.csv`, `valid.csv`). Everything is written beside its name and then renamed over it.
"""

from __future__ import annotations

import csv
import json
import math
import resource
import shutil
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoint import file_digests
from packing import DataError

if TYPE_CHECKING:
    from train_lora import Training


@dataclass(frozen=True)
class Settings:
    """What is turned; the meaning of each is in configs/<size>.yaml."""

    rank: int
    alpha: int
    layers: int | None
    learning_rate: float
    warmup_share: float
    weight_decay: float
    betas: tuple[float, float]
    clip_norm: float
    examples: int
    backward_share: float
    row_tokens: int
    rows_per_step: int
    time_limit_s: float | None
    validate_every: float
    validation_rows: int
    checkpoint_every_s: float


@dataclass(frozen=True)
class Run:
    """A run's inputs and outputs.

    `base_name` is what the adapter calls its base, never a local path. `device` is "cpu" or "cuda". At `stop_at`
    (Unix seconds) an unfinished run stops with a checkpoint; None means never. `run_id` is what checkpoints are
    marked with.
    """

    base: Path
    base_name: str
    dataset: Path
    adapter: Path
    metrics: Path
    plots: Path
    checkpoints: Path
    seed: int
    settings: Settings
    device: str = "cpu"
    stop_at: float | None = None
    run_id: str = ""

    def what_is_trained(self) -> dict[str, Any]:
        """The fields that change the result; where it is trained, and what only the clock decides, do not."""
        settings = asdict(self.settings)
        del settings["checkpoint_every_s"], settings["time_limit_s"]
        return {"base_name": self.base_name, "seed": self.seed, "settings": settings}


def read_run(path: Path) -> Run:
    """Read a run's description; an unknown or missing field is a `DataError`."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        settings = Settings(**given.pop("settings"))
        places = {f.name for f in fields(Run) if f.type == "Path"}
        return Run(settings=settings, **{k: Path(v) if k in places else v for k, v in given.items()})
    except FileNotFoundError:
        raise DataError(f"{path}: not there; name the file that describes the run") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a run's description: {error}") from None


class Curves:
    """The loss over the run: a point for the steps since the last one, and each validation."""

    def __init__(self) -> None:
        self.loss: list[list[float]] = []
        self.valid: list[list[float]] = []
        self._open = [0.0, 0.0]  # summed loss and answer tokens since the last point

    def add_step(self, loss: float, answers: int) -> None:
        """`loss` is the mean over the step's answer tokens."""
        self._open[0] += loss * answers
        self._open[1] += answers

    def add_point(self, step: int, examples: int, rate: float) -> None:
        """The mean over the answer tokens of the steps since the last point; no point where there is no step."""
        if not self._open[1]:
            return
        self.loss.append([step, examples, self._open[0] / self._open[1], rate])
        self._open = [0.0, 0.0]

    def is_validated(self, step: int) -> bool:
        """Whether the last validation is of that step."""
        return bool(self.valid) and self.valid[-1][0] == step

    def add_validation(self, step: int, examples: int, loss: float) -> None:
        self.valid.append([step, examples, loss])

    def state(self) -> dict[str, Any]:
        return {"loss": self.loss, "valid": self.valid, "open": self._open}

    def restore(self, state: dict[str, Any]) -> None:
        self.loss, self.valid, self._open = state["loss"], state["valid"], state["open"]


def write_results(run: Run, training: Training, digests: dict[str, dict[str, str]]) -> None:
    """Write the curves, the metrics, and last the adapter with its digests: where it is, the run is finished."""
    partial = run.adapter.with_name(f".{run.adapter.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    training.adapter.save(partial, run.base_name)
    adapter = file_digests(sorted(partial.iterdir()))
    _write(partial / "digests.json", _json({"adapter": adapter, **digests}))

    curves = training.curves
    run.plots.mkdir(parents=True, exist_ok=True)
    _write_csv(run.plots / "loss.csv", ["step", "examples", "train_loss", "learning_rate"], curves.loss)
    _write_csv(run.plots / "valid.csv", ["step", "examples", "valid_loss"], curves.valid)
    run.metrics.parent.mkdir(parents=True, exist_ok=True)
    _write(run.metrics, _json(_metrics(training)))
    shutil.rmtree(run.adapter, ignore_errors=True)
    partial.replace(run.adapter)


def _metrics(training: Training) -> dict[str, Any]:
    seconds = training.elapsed_s
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return {
        "examples": training.examples,
        "examples_planned": training.schedule.examples,  # more than `examples` where the time limit came first
        "examples_per_s": round(training.examples / seconds, 2),
        "steps": training.step,
        "skipped_steps": training.scale.skipped,
        "seconds": round(seconds, 1),
        "train_loss": round(training.curves.loss[-1][2], 5),
        "valid_loss": round(training.curves.valid[-1][2], 5),
        "trainable_parameters": training.adapter.values.numel(),
        "peak_memory_mb": math.ceil(kilobytes / 1024),
        "number_format": training.placement.number_format,
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _write_csv(path: Path, header: list[str], rows: list[list[float]]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows)
    partial.replace(path)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
