"""A training run on Kaggle from end to end, in steps that can each be interrupted and gone on from.

In: a `CloudRun`. Out: its folder `result` with adapter, metrics and plots, verified. `submit` makes sure that the
run is at work (and pushes it if it is not), `collect` waits for it and fetches it. Both find a run that somebody
else has submitted, by its digest.
"""

import os
import shutil
import time
from functools import cached_property
from pathlib import Path

from stages.common import paths
from stages.common.files import read_json, replace_directory, replace_file, write_json
from stages.training import estimate, live
from stages.training.bundles import Bundle, CloudRun
from stages.training.client import Kaggle
from stages.training.dataset import ensure_dataset
from stages.training.failures import (
    ArtefactError,
    BusyError,
    CallError,
    CredentialsError,
    RefusedError,
    RunCancelledError,
    RunFailedError,
)
from stages.training.fetch import (
    DIGESTS,
    check_origin,
    checkpoint_bundle,
    checkpoint_in,
    fetch_files,
    fetch_log,
)
from stages.training.patience import persist, say
from stages.training.poll import ENDED, State, look, wait
from stages.training.push import check_source, find, notebook_for, push, settle
from stages.training.receipt import Attempt, Receipt
from stages.training.settings import KaggleSettings, kaggle_settings

_OTHERS = 5  # how many of our newest other runs are asked whether they are at work


class Session:
    """One run, its receipt, and the account it belongs to."""

    def __init__(self, run: CloudRun) -> None:
        self.run = run
        self.settings: KaggleSettings = kaggle_settings()
        self.receipt = Receipt(run.folder)
        run.folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def kaggle(self) -> Kaggle:
        """The account; a result that is here already is put in place without one."""
        return Kaggle(os.environ, paths.CACHE / "kaggle" / "home")

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        if "kaggle" in self.__dict__:
            self.kaggle.close()

    def ask(self, operation: str, what: str, **arguments: object) -> object:
        """A call that changes nothing, with patience.

        Raises:
            RefusedError: an answer that will not change by waiting.
        """
        try:
            return self._ask(operation, what, **arguments)
        except CallError as error:
            raise RefusedError(f"{what}: {error}") from None

    def _ask(self, operation: str, what: str, **arguments: object) -> object:
        return persist(
            lambda: self.kaggle.call(operation, self.settings.call_limit_s, **arguments), what, self.settings
        )

    def owner(self) -> str:
        """The account's name.

        Raises:
            CredentialsError: it is not the one that KAGGLE_USERNAME names.
        """
        name = self.ask("whoami", "signing in")["username"]
        wanted = os.environ.get("KAGGLE_USERNAME")
        if wanted and wanted != name:
            raise CredentialsError(f"the token is {name}'s and KAGGLE_USERNAME says {wanted}; unset one of them")
        return name

    def recover(self, owner: str) -> Attempt | None:
        """The newest attempt that exists: from the receipt, or from Kaggle where the receipt was lost."""
        last = self.receipt.last
        if last is None:
            for number in range(1, self.settings.max_sessions + 1):  # an earlier one may have been deleted
                if version := find(self.kaggle, owner, self.run.slug(number), self.settings):
                    self.receipt.add(self._attempt(number, "pushed", version))
                    say(f"found {self.run.slug(number)}, pushed from elsewhere")
        elif last.phase == "pushing" and settle(self.kaggle, self.receipt, owner, self.settings) is None:
            self.receipt.drop_last()
        return self.receipt.last

    def submit(self) -> Attempt | None:
        """Make sure that the run is at work; returns its attempt, or None where it is finished.

        Raises:
            PipelineError: one of `failures`; `push` says after which of them something may have been started.
        """
        if self.run.result.is_dir():
            return None
        owner = self.owner()
        last = self.recover(owner)
        if last and last.phase in ("pushed", "finished"):
            return last
        number = last.number + 1 if last else 1
        if number > self.settings.max_sessions:
            raise RefusedError(
                f"{self.run.digest}: {last.number} sessions and no end; see the logs in {self.run.folder}, "
                "mend the cause or raise max_sessions in stages/training/kaggle.yaml"
            )
        attempt = self._attempt(number, "pushing")
        inputs = self._inputs()
        check_source(attempt.slug, notebook_for(attempt, inputs, self.settings))
        say(f"{attempt.slug} {self._check_quota(attempt)}")
        self._check_idle(owner)
        refs = [ensure_dataset(self.kaggle, owner, bundle, self.settings) for bundle in inputs.values()]
        if version := find(self.kaggle, owner, attempt.slug, self.settings):
            return self.receipt.add(self._attempt(number, "pushed", version))  # somebody was quicker
        self.receipt.add(self._attempt(number, "pushing"))
        pushed = push(self.kaggle, self.run, self.receipt, owner, inputs, refs, self.settings)
        say(f"pushed kaggle.com/code/{owner}/{pushed.slug} as version {pushed.version}")
        return pushed

    def collect(self) -> None:
        """Wait for the run and fetch it, over as many sessions as it takes; ends with `result` in place."""
        while not self.run.result.is_dir():
            self.submit()
            self._bring_home(self.owner())

    def look(self) -> str:
        """One line about the run, from one look."""
        if self.run.result.is_dir():
            return f"{self.run.digest}: finished; its result is in {self.run.result}"
        owner = self.owner()
        attempt = self.recover(owner)
        if attempt is None:
            return f"{self.run.digest}: not submitted"
        if attempt.phase != "pushed":
            return f"{attempt.slug}: {attempt.phase}" + (f": {attempt.failure}" if attempt.failure else "")
        state = look(self.kaggle, owner, attempt, self.settings)
        return f"{attempt.slug}: {state.status.lower()}"

    def cancel(self) -> str:
        """Stop the run. A running session is stopped by its number, which its log tells; a queued one by deleting
        its kernel, which holds nothing else.

        Raises:
            RefusedError: Kaggle refuses, or the number is not known.
        """
        owner = self.owner()
        attempt = self.recover(owner)
        if attempt is None or attempt.phase != "pushed":
            return "nothing of this run is at work"
        state = look(self.kaggle, owner, attempt, self.settings)
        if state.status in ENDED:
            return f"{attempt.slug} has ended: {state.status.lower()}"
        try:
            if state.status == "QUEUED":
                self._ask("delete", "taking it out of the queue", ref=f"{owner}/{attempt.slug}")
                self.receipt.update(phase="failed", failure="cancelled while it was queued")
                return f"{attempt.slug}: taken out of the queue"
            number = self._session_number(owner, attempt)
            answer = self._ask("cancel", "cancelling", session=number)
        except CallError as error:
            raise RefusedError(f"{attempt.slug}: not cancelled: {error}") from None
        if answer["error"]:
            raise RefusedError(f"{attempt.slug}: not cancelled: Kaggle says: {answer['error']}")
        return f"{attempt.slug}: asked Kaggle to stop session {number}"

    def plan(self) -> list[str]:
        """What `submit` would do and cost, having asked and changed nothing."""
        if self.run.result.is_dir():
            return [f"{self.run.digest} is finished: nothing to do, no cost"]
        owner = self.owner()
        last = self.receipt.last
        number = last.number + (last.phase in ("failed", "stopped")) if last else 1
        attempt = self._attempt(number, "pushing")
        inputs = self._inputs()
        notebook = notebook_for(attempt, inputs, self.settings)
        check_source(attempt.slug, notebook)
        lines = [f"account {owner}, kernel {attempt.slug}, time-out {attempt.timeout_s / 3600:.1f} h"]
        if find(self.kaggle, owner, attempt.slug, self.settings):
            return [*lines, "it is pushed already: would wait for it and fetch it, no further cost"]
        for bundle in inputs.values():
            lines.append(
                f"dataset {bundle.slug}: {sum(bundle.sizes.values()) / 1e6:.1f} MB, uploaded if not there"
            )
        lines.append(self._check_quota(attempt))
        self._check_idle(owner)
        return lines

    def _attempt(self, number: int, phase: str, version: int = 0) -> Attempt:
        before = self._with_checkpoint()
        progress = before.progress if before else 0.0
        need = estimate.estimate_s(self.run, self.settings, estimate.read_history(), progress)
        limit = estimate.timeout_s(self.run, need, self.settings)
        return Attempt(number, self.run.slug(number), phase, time.time(), need, limit, version)

    def _with_checkpoint(self) -> Attempt | None:
        """The newest attempt whose checkpoint is here; a later one may have failed before it wrote any."""
        kept = (a for a in self.receipt.attempts if a.checkpoint and (self.run.folder / a.checkpoint).is_dir())
        return max(kept, key=lambda attempt: attempt.number, default=None)

    def _inputs(self) -> dict[str, Bundle]:
        inputs = {"base": self.run.base, "run": self.run.run}
        if before := self._with_checkpoint():
            inputs["checkpoint"] = checkpoint_bundle(self.run.folder / before.checkpoint)
        return inputs

    def _check_quota(self, attempt: Attempt) -> str:
        return estimate.check_quota(self.ask("quota", "asking for the quota"), attempt.estimate_s)

    def _check_idle(self, owner: str) -> None:
        """Raises `BusyError` where another run of ours is at work: two would share the week's hours unnoticed."""
        mine = self.run.slug(0).rsplit("-", 1)[0]
        others = [ref for ref in self.ask("own_kernels", "listing our runs", search="oops-") if mine not in ref]
        for ref in [ref for ref in others if ref.split("/")[-1].startswith("oops-")][:_OTHERS]:
            try:
                state = self._ask("status", "asking for another run", ref=f"{owner}/{ref.split('/')[-1]}")[
                    "status"
                ]
            except CallError as error:
                if not error.is_missing_or_closed:  # a kernel without a run
                    raise RefusedError(f"kernel {ref}: {error}") from None
                continue
            if state in ("QUEUED", "RUNNING", "CANCEL_REQUESTED"):
                raise BusyError(
                    f"another run of ours is {state.lower()}: kaggle.com/code/{ref}; wait for it or cancel it"
                )

    def _session_number(self, owner: str, attempt: Attempt) -> int:
        """The session's number, from the live log."""
        log = self.run.folder / f"{attempt.slug}.cancel.log"
        log.unlink(missing_ok=True)
        ref = f"{owner}/{attempt.slug}/{attempt.version}"
        deadline = time.monotonic() + self.settings.call_limit_s
        text = ""
        with live.LiveLog(self.kaggle.follow(ref, log, self.settings.log_reconnect_s), log) as lines:
            while time.monotonic() < deadline:
                text += "\n".join([*lines.new_lines(), ""])
                if (number := live.session_number(text)) is not None:
                    return number
                time.sleep(0.5)
        raise RefusedError(
            f"{attempt.slug}: its log does not tell its session; cancel it at kaggle.com/code/{owner}"
        )

    def _bring_home(self, owner: str) -> None:
        """Wait for the newest attempt, and note how it went wrong if it did."""
        try:
            state = wait(self.kaggle, owner, self.receipt, self.run.folder, self.settings)
            self._take(owner, state)
        except RunFailedError as error:
            self.receipt.update(phase="failed", failure=str(error))
            raise
        except ArtefactError as error:
            # an output that does not come whole twice over is lost, and its run with it
            lost = self.receipt.last.failure is not None
            self.receipt.update(phase="failed" if lost else "pushed", failure=str(error))
            raise

    def _take(self, owner: str, state: State) -> None:
        """Take what an ended attempt has left: the result, or a checkpoint to go on from.

        The verified output decides, not the state: a run that has written its result and then met its time-out is
        finished, one that is COMPLETE and has left nothing is not, one that was cut off may leave a checkpoint.
        """
        attempt = self.receipt.last
        complete = state.status == "COMPLETE"
        log = fetch_log(self.kaggle, owner, attempt, self.run.folder, self.settings)
        try:
            output = fetch_files(self.kaggle, owner, attempt, self.run.folder, self.settings, complete)
        except ArtefactError:
            if complete:
                raise
            raise self._failure(attempt, state, log) from None
        digests = read_json(output / DIGESTS) if (output / DIGESTS).is_file() else {}
        attempt = self.receipt.update(session_s=digests.get("session_s", _running_s(attempt)))
        if digests.get("finished"):
            check_origin(output, self.run)
            output.replace(self.run.result)
            self.receipt.update(phase="finished")
            say(f"{attempt.slug}: finished and verified")
            return
        attempt = self._keep_checkpoint(attempt, output)
        if not complete and not (state.timed_out and attempt.checkpoint):
            raise self._failure(attempt, state, log)
        if attempt.checkpoint is None:
            raise ArtefactError(f"{attempt.slug}: ended without an adapter and without a checkpoint")
        self.receipt.update(phase="stopped")
        say(f"{attempt.slug}: its session was too short; the next one goes on from its checkpoint")

    def _keep_checkpoint(self, attempt: Attempt, output: Path) -> Attempt:
        """Move the checkpoint, if there is one, out of the fetched output, and note it."""
        if found := checkpoint_in(output, attempt.slug):
            folder, progress = found
            name = f"checkpoint-{attempt.number}/{folder.name}"
            target = self.run.folder / name
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            folder.replace(target)
            attempt = self.receipt.update(checkpoint=name, progress=progress)
        shutil.rmtree(output, ignore_errors=True)
        return attempt

    def _failure(self, attempt: Attempt, state: State, log: str) -> RunFailedError | RunCancelledError:
        """Note how an unfinished run ended, and say so."""
        why = live.reason(log) or state.failure or "its log gives no reason"
        cancelled = state.status == "CANCEL_ACKNOWLEDGED" and not state.timed_out
        go_on = " from its checkpoint" if attempt.checkpoint else ""
        self.receipt.update(phase="failed", failure=why)
        kind = RunCancelledError if cancelled else RunFailedError
        word = "was cancelled" if cancelled else "failed"
        return kind(
            f"{attempt.slug} {word}: {state.failure or why}"
            + (f" ({why})" if state.failure and why != state.failure else "")
            + f"; log: {self.run.folder}/{attempt.slug}.log; run again to go on{go_on}"
        )


def train_on_kaggle(run: CloudRun) -> None:
    """Train on Kaggle, or find the run that already does or did, and put its results where the stage's are."""
    with Session(run) as session:
        session.collect()
        install(run, session.receipt)


def _running_s(attempt: Attempt) -> float | None:
    """Seconds that a session without a last word has run for, as far as anybody has seen it."""
    if attempt.running_since is None:
        return None
    return min(time.time() - attempt.running_since, attempt.timeout_s)


def install(run: CloudRun, receipt: Receipt) -> None:
    """Copy the verified result to the stage's outputs; the estimate and the truth join the metrics.

    Both are of the whole run: the first session's estimate, and the seconds of all sessions. Of sessions that a
    machine, now lost, has seen alone, the time in training is known at least.
    """
    output = run.result
    with replace_directory(run.model.adapter) as folder:
        shutil.copytree(output / "adapter", folder, dirs_exist_ok=True)
    for curve in sorted((output / "plots").glob("*.csv")):
        with replace_file(run.model.plots / "train" / curve.name, "wb") as file:
            file.write(curve.read_bytes())
    metrics = read_json(output / "train.json")
    session_s = max(receipt.session_s, read_json(output / DIGESTS)["session_s"], metrics["seconds"])
    estimated_s = receipt.attempts[0].estimate_s if receipt.attempts else session_s
    hours = {"gpu_hours": round(session_s / 3600, 4), "gpu_hours_estimated": round(estimated_s / 3600, 4)}
    write_json(run.model.metrics / "train.json", {**metrics, **hours})
    estimate.note_run(run, session_s, estimated_s, metrics["examples"])
