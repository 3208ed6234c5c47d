"""One run of a kernel version: it waits in the queue, runs the notebook, keeps the outputs and ends.

In: what was pushed and what it may read. Out: state, failure message, log and files, at any time, from any thread.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .accounts import Account
from .effects import End, LoseFiles, LoseLog, Machine, NoRun, OldLayout, SpoilInputs, StayRunning, Unmounted
from .faults import INPUTS, SAVING, SESSION, START, Faults
from .sandbox import Mount, Sandbox
from .settings import Delays, Limits

TERMINAL = frozenset({"COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED"})
_TIME_OUT = End(
    "CANCEL_ACKNOWLEDGED", "Your notebook was stopped because it exceeded the max allowed execution duration."
)
_CANCELLED = End("CANCEL_ACKNOWLEDGED", "")
_BROKEN = End("ERROR", "the stand-in itself failed; its traceback is on standard error")


@dataclass(frozen=True)
class Job:
    """What a session runs: for whom, the notebook's source, its inputs and GPUs, and for how long at most."""

    account: Account
    notebook: str
    mounts: tuple[Mount, ...]
    gpus: tuple[str, ...]
    limit_s: int


class Session:
    """A run. `state` is None until Kaggle has made it, then a KernelWorkerStatus by name."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        faults: Faults,
        delays: Delays,
        limits: Limits,
        environment: Mapping[str, str],
    ) -> None:
        self.id = secrets.randbelow(9 * 10**8) + 10**8
        self.job = job
        self.state: str | None = None
        self.message = ""
        self.started = False
        self.failure = ""  # where the stand-in itself failed
        self.outputs = folder / f"{self.id}-output"
        self._folder = folder / str(self.id)
        self._faults, self._delays, self._limits, self._environment = faults, delays, limits, environment
        self._changed = threading.Condition()
        self._entries: list[dict] = []
        self._log_kept = False
        self._sandbox: Sandbox | None = None
        self._ending: End | None = None
        self._ended_at: float | None = None
        self._start_fault = faults.take(START)
        self._end_fault = faults.take(SESSION)
        self._thread = threading.Thread(target=self._live, name=f"session-{self.id}", daemon=True)
        self._thread.start()

    @property
    def container(self) -> str:
        """What the notebook finds in KAGGLE_CONTAINER_NAME."""
        return f"kaggle-session-{self.id}-batch"

    @property
    def working(self) -> Path:
        """/kaggle/working of the run, while there is one."""
        return self._sandbox.working

    @property
    def ended(self) -> bool:
        return self._ended_at is not None

    @property
    def holds_slot(self) -> bool:
        """Whether it counts as an active session of its account."""
        return self._ended_at is None or time.monotonic() < self._ended_at + self._delays.slot_release_s

    def wait(self, timeout: float) -> bool:
        """Wait for the end; whether it came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.ended, timeout)

    def wait_for_log(self, text: str, timeout: float) -> bool:
        """Wait until the log has `text` in one of its entries."""
        with self._changed:
            return self._changed.wait_for(lambda: any(text in entry["data"] for entry in self._entries), timeout)

    def cancel(self) -> None:
        """CancelKernelSession: the state changes at once, the run stops a little later."""
        with self._changed:
            if self.ended or self.state == "CANCEL_REQUESTED":
                return
            self.state = "CANCEL_REQUESTED"
        threading.Timer(self._delays.cancel_s, self._stop, [_CANCELLED]).start()

    def drop(self) -> None:
        """The kernel was deleted: a run that has not begun never will."""
        if not self.started:
            self._stop(_CANCELLED)

    def abandon(self) -> None:
        """The stand-in closes: stop at once and give back what the session holds."""
        self._stop(_CANCELLED)
        self._thread.join()

    def files(self) -> list[Path]:
        """The kept files; none while it runs, some of them while it is being cancelled."""
        if not self.outputs.exists() or self.state not in TERMINAL | {"CANCEL_REQUESTED"}:
            return []
        return sorted(path for path in self.outputs.rglob("*") if path.is_file())

    def log(self) -> str:
        """The log as Kaggle keeps it, a JSON array; '' until the end."""
        return json.dumps(self._entries) if self._log_kept else ""

    def follow(self) -> Iterator[dict]:
        """The log's entries from the first one on, as they come, until the run's end."""
        seen = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda seen=seen: len(self._entries) > seen or self.ended)
                new, over = self._entries[seen:], self.ended
            yield from new
            seen += len(new)
            if over:
                return

    # --- the session's own thread
    def _live(self) -> None:
        effect = self._start_fault.effect if self._start_fault else None
        made_after = effect.seconds if isinstance(effect, NoRun) else self._delays.run_made_s
        if self._stopped_within(made_after):
            return self._end()
        self._become("QUEUED")
        if self._stopped_within(self._delays.queue_s):
            return self._end()
        begin = time.monotonic()
        try:
            self._run()
            self._keep()
        except Exception as error:  # of the stand-in's own; a notebook's error is an exit code
            traceback.print_exc()
            self.failure = repr(error)
            if self._sandbox:
                self._sandbox.kill()
        self._charge(time.monotonic() - begin)
        self._end()

    def _run(self) -> None:
        effect = self._end_fault.effect if self._end_fault else None
        gpus = effect.gpus if isinstance(effect, Machine) else self.job.gpus
        self._sandbox = Sandbox(self._folder, self.container, gpus)
        self._mount(self._sandbox)
        with self._changed:
            if self._ending:
                return
            process = self._sandbox.start(self.job.notebook, self._environment)
            self.started = True
            self._become("RUNNING")
        limit = threading.Timer(self.job.limit_s * self._limits.second_s, self._stop, [_TIME_OUT])
        limit.daemon = True
        limit.start()
        for line in process.stdout:
            if not line.endswith("\n"):
                break  # the process was killed while it wrote
            self._add(json.loads(line))
            if isinstance(effect, End) and effect.at in line:
                self._stop(effect)
        limit.cancel()
        if process.wait() and not self._entries:
            errors = (self._folder / "runner.err").read_text(encoding="utf-8", errors="replace")
            self._add({"stream_name": "stderr", "time": 0.0, "data": errors})
        process.stdout.close()
        self._sandbox.kill()
        with self._changed:
            self._ending = self._ending or self._own_ending(process)

    def _own_ending(self, process: subprocess.Popen) -> End:
        # the traceback is in the log; Kaggle has no failure message for it
        return End("COMPLETE" if process.returncode == 0 else "ERROR", "")

    def _mount(self, sandbox: Sandbox) -> None:
        fault = self._faults.take(INPUTS)
        effect = fault.effect if fault else None
        if isinstance(effect, Unmounted):
            return
        for mount in self.job.mounts:
            mount.lay_out(sandbox.input / (mount.old_name if isinstance(effect, OldLayout) else mount.place))
        if isinstance(effect, SpoilInputs):
            for path in sandbox.input.rglob(f"*{effect.suffix}"):
                content = path.read_bytes()
                path.write_bytes(bytes([content[0] ^ 1]) + content[1:])

    def _keep(self) -> None:
        fault = self._faults.take(SAVING)
        effect = fault.effect if fault else None
        files = sum(1 for path in self._sandbox.working.rglob("*") if path.is_file()) or 1
        pause = self._delays.save_s / files
        lost = effect.suffix if isinstance(effect, LoseFiles) else None
        self._sandbox.save(self.outputs, lost, between=lambda: time.sleep(pause))
        self._log_kept = not isinstance(effect, LoseLog)
        self._sandbox.remove()

    def _charge(self, seconds: float) -> None:
        if self.job.gpus:
            self.job.account.charge(seconds / self._limits.second_s / 3600)

    def _end(self) -> None:
        ending = _BROKEN if self.failure else self._ending
        effect = self._end_fault.effect if self._end_fault else None
        with self._changed:
            self._ended_at = time.monotonic()
            self.message = ending.message
            if not isinstance(effect, StayRunning):
                self.state = ending.state
            self._changed.notify_all()

    # --- between threads
    def _stop(self, ending: End) -> None:
        """End the run as `ending` says, unless it is ending already."""
        with self._changed:
            if self._ending or self.ended:
                return
            self._ending = ending
            self._changed.notify_all()
            running = self.started
        if running:
            self._sandbox.kill()

    def _stopped_within(self, seconds: float | None) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._ending is not None, seconds)

    def _become(self, state: str) -> None:
        with self._changed:
            if self.state != "CANCEL_REQUESTED":
                self.state = state
            self._changed.notify_all()

    def _add(self, entry: dict) -> None:
        with self._changed:
            self._entries.append(entry)
            self._changed.notify_all()
