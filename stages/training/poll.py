"""Watch one run to its end."""

import random
import time
from dataclasses import dataclass
from pathlib import Path

from stages.training.client import Kaggle
from stages.training.failures import CallError, RefusedError, RunFailedError, UnfinishedError, UnreachableError
from stages.training.live import LiveLog, progress
from stages.training.patience import persist, say
from stages.training.receipt import Attempt, Receipt
from stages.training.settings import KaggleSettings

ENDED = {"COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED"}
QUEUED = {"QUEUED", "NEW_SCRIPT"}
RUNNING = {"RUNNING", "CANCEL_REQUESTED"}
_SILENT = "unknown"  # an answer without a state; the SDK alone would call it QUEUED
_NOT_STARTED = "not started"


@dataclass(frozen=True)
class State:
    """A kernel's state in Kaggle's words, and what it says about a failure."""

    status: str
    failure: str = ""

    @property
    def timed_out(self) -> bool:
        """Whether Kaggle has ended the session at its limit, which it calls a cancellation."""
        return "max allowed execution duration" in self.failure


def look(kaggle: Kaggle, owner: str, attempt: Attempt, settings: KaggleSettings) -> State:
    """Ask once for the state of exactly the version that we pushed.

    Raises:
        RefusedError: Kaggle denies us the kernel.
    """
    ref = f"{owner}/{attempt.slug}/{attempt.version}"
    try:
        answer = persist(
            lambda: kaggle.call("status", settings.call_limit_s, ref=ref), "asking for the state", settings
        )
    except CallError as error:
        if error.is_missing_or_closed:
            return State(_NOT_STARTED)
        if error.kind == "client":  # a state that the client does not know
            return State(_SILENT)
        raise RefusedError(f"kernel {ref}: {error}; is it still there?") from None
    return State(answer["status"] or _SILENT, answer["failure"])


def wait(kaggle: Kaggle, owner: str, receipt: Receipt, folder: Path, settings: KaggleSettings) -> State:
    """Poll until the run has ended, showing state, minutes, its log, loss and time left.

    Raises:
        RunFailedError: it never started.
        UnfinishedError: it is queued or running for longer than it may; it is left alone.
    """
    attempt = receipt.last
    log = folder / f"{attempt.slug}.live.log"
    log.unlink(missing_ok=True)
    ref = f"{owner}/{attempt.slug}/{attempt.version}"
    began = known = time.time()
    missing_since: float | None = None
    shown = ""
    with LiveLog(kaggle.follow(ref, log, settings.log_reconnect_s), log) as live:
        while True:
            state = look(kaggle, owner, attempt, settings)
            if state.status in ENDED:
                _show(live)
                say(f"{attempt.slug}: {state.status.lower()} after {_minutes(attempt)}")
                return state
            if state.status in RUNNING and attempt.running_since is None:
                attempt = receipt.update(running_since=time.time())
            known = known if state.status == _SILENT else time.time()
            if time.time() - known > settings.unreachable_s:
                raise UnreachableError(f"{attempt.slug}: Kaggle does not tell its state any more; run again later")
            missing_since = (missing_since or time.time()) if state.status == _NOT_STARTED else None
            _hold_to_deadlines(state, attempt, began, missing_since, settings)
            if state.status != shown:
                shown = state.status
                say(f"{attempt.slug}: {shown.lower().replace('_', ' ')}, {_minutes(attempt)}")
            _sleep(live, attempt, random.uniform(1.0, 1.2) * settings.poll_s)


def _hold_to_deadlines(
    state: State, attempt: Attempt, began: float, missing_since: float | None, settings: KaggleSettings
) -> None:
    now = time.time()
    if missing_since is not None and now - missing_since > settings.no_run_grace_s:
        raise RunFailedError(
            f"{attempt.slug}: Kaggle knows no run of it (never started, or deleted); run again to push it anew"
        )
    if state.status in QUEUED and now - began > settings.queued_limit_s:
        raise UnfinishedError(
            f"{attempt.slug}: still queued after {settings.queued_limit_s / 3600:.1f} h; run again to go on "
            "waiting, or `python -m stages.train cancel`"
        )
    ends = attempt.timeout_s + settings.save_s
    if state.status in RUNNING and attempt.running_since and now - attempt.running_since > ends:
        raise UnfinishedError(
            f"{attempt.slug}: still running {ends / 3600:.1f} h after its start, past its time-out; run again to "
            "go on waiting, or `python -m stages.train cancel`"
        )


def _sleep(live: LiveLog, attempt: Attempt, seconds: float) -> None:
    """Wait for the next poll, passing the log on meanwhile."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if newest := progress(_show(live)):
            say(f"{attempt.slug}: running, {_minutes(attempt)}, {newest}")
        time.sleep(min(left, 1.0))


def _show(live: LiveLog) -> list[str]:
    """Pass on what is new in the log, but for progress, which the caller tells with the minutes."""
    lines = live.new_lines()
    for line in lines:
        if not progress([line]):
            print(f"  | {line}", flush=True)
    return lines


def _minutes(attempt: Attempt) -> str:
    if attempt.running_since:
        return f"{(time.time() - attempt.running_since) / 60:.1f} min running"
    return f"{(time.time() - attempt.asked_at) / 60:.1f} min since the push"
