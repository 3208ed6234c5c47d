"""What a run will cost of the week's GPU hours, and whether so much is left.

Kaggle counts a session's hours once, however many GPUs it has. The estimate goes by the finished runs of the size
(metrics/kaggle_runs.csv, written here, kept in git), else by the table in kaggle.yaml.
"""

import csv
import statistics
import time
from pathlib import Path
from typing import Any

from stages.common.errors import PipelineError
from stages.common.files import replace_file
from stages.training.bundles import CloudRun
from stages.training.failures import QuotaError
from stages.training.settings import Estimate, KaggleSettings

RUNS = Path("metrics/kaggle_runs.csv")
_COLUMNS = ["date", "run", "size", "examples", "session_s", "estimate_s"]
_RECENT = 5


def estimate_s(
    run: CloudRun, settings: KaggleSettings, history: list[dict[str, str]], progress: float = 0.0
) -> float:
    """Seconds of GPU session that the run will take; of a run that has made `progress` (0 to 1), the rest."""
    guess = calibrated(run.size, settings, history)
    return guess.start_s + (1 - progress) * run.examples / guess.examples_per_s


def calibrated(size: str, settings: KaggleSettings, history: list[dict[str, str]]) -> Estimate:
    """The size's speed: the median of its last runs, start-up included, or the table's."""
    runs = [row for row in history if row["size"] == size][-_RECENT:]
    if runs:
        speeds = [int(row["examples"]) / float(row["session_s"]) for row in runs]
        return Estimate(examples_per_s=statistics.median(speeds), start_s=0)
    if size not in settings.estimates:
        raise PipelineError(f"stages/training/kaggle.yaml: estimates: no {size}; add how fast it trains")
    return settings.estimates[size]


def timeout_s(run: CloudRun, estimate: float, settings: KaggleSettings) -> int:
    """The session's time-out: room for a bad estimate, but no stuck run that burns the week."""
    return round(min(settings.session_limit_s, 2 * estimate + 2 * settings.margin_s))


def check_quota(quota: dict[str, Any], need_s: float) -> str:
    """One line that says what is left of the week.

    Raises:
        QuotaError: less than `need_s`.
    """
    gpu = quota["gpu"]
    if gpu is None:
        return "Kaggle does not say how many GPU hours are left"
    # a running session's reservation is as good as spent
    left_s = gpu["total_s"] - gpu["used_s"] - gpu["reserved_s"]
    if left_s < need_s:
        raise QuotaError(
            f"this run needs about {need_s / 3600:.1f} h of GPU, and {max(0, left_s) / 3600:.1f} h of this week's "
            f"{gpu['total_s'] / 3600:.0f} h are left; run again after {quota['reset'] or 'the reset'} (UTC)"
        )
    return f"needs about {need_s / 3600:.2f} h of the {left_s / 3600:.1f} h of GPU left this week"


def read_history() -> list[dict[str, str]]:
    """The finished runs, oldest first."""
    if not RUNS.is_file():
        return []
    with RUNS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def note_run(run: CloudRun, session_s: float, estimate: float, examples: int) -> None:
    """Add a finished run to the history, once."""
    history = [row for row in read_history() if row["run"] != run.digest]
    row = [
        time.strftime("%Y-%m-%d", time.gmtime()),
        run.digest,
        run.size,
        examples,
        round(session_s),
        round(estimate),
    ]
    with replace_file(RUNS) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows([[old[name] for name in _COLUMNS] for old in history] + [row])
