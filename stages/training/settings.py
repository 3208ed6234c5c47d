"""The driver's settings: `kaggle.yaml` beside this file, or the file that TRAIN_SETTINGS names."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from stages.common.config import Positive, Section
from stages.common.errors import PipelineError
from stages.common.files import read_yaml

DEFAULT = Path("stages/training/kaggle.yaml")

Seconds = Annotated[float, Field(ge=0)]


class Estimate(Section):
    """How fast a size trains, and what a session takes besides."""

    examples_per_s: Annotated[float, Field(gt=0)]
    start_s: Seconds


class KaggleSettings(Section):
    """See kaggle.yaml, where each key is explained."""

    machine_shape: str
    gpu: str
    gpus: Positive
    device: Literal["cuda", "cpu"]
    session_limit_s: Seconds
    margin_s: Seconds
    max_sessions: Positive
    poll_s: Seconds
    log_reconnect_s: Seconds
    report_s: Seconds
    queued_limit_s: Seconds
    save_s: Seconds
    no_run_grace_s: Seconds
    busy_wait_s: Seconds
    dataset_ready_s: Seconds
    settle_s: Seconds
    unreachable_s: Seconds
    fetch_tries: Positive
    call_limit_s: Seconds
    transfer_limit_s: Seconds
    backoff_first_s: Seconds
    backoff_longest_s: Seconds
    estimates: dict[str, Estimate]


def kaggle_settings() -> KaggleSettings:
    """Read and check the settings; a bad key is a `PipelineError` that names it."""
    path = Path(os.environ.get("TRAIN_SETTINGS", DEFAULT))
    try:
        return KaggleSettings.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise PipelineError(f"{path}: {key}: {first['msg']}") from None
