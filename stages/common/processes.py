"""Processes that never outlive those that started them: a stage its dvc, a child process its stage."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.common.errors import PipelineError

_DVC_RECORD = Path(".dvc/tmp/rwlock")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

PATIENT_THREADS = {"GOMP_SPINCOUNT": "20000"}
"""Environment of programs whose OpenMP threads wait for each other: they spin for a moment, then sleep.

Spinning without end, libgomp's default, costs most of the other core as soon as anything else takes one away
(training: 25 s a step instead of 0.5). Sleeping at once (OMP_WAIT_POLICY=passive) costs a third to a half of the
speed on free cores (19 examples/s instead of 25 to 32).
"""


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere nothing happens).

    Without it a `kill -9` leaves the child running, and the next run starts a second one beside it. Usable as
    `preexec_fn`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def die_with_dvc() -> None:
    """Have this stage killed when the dvc that runs it dies, also if that happened before this line.

    A shell may stand between the two (dash stays, bash gives its place to the stage), so the parent's death does
    not tell. Which process dvc is, it writes itself into .dvc/tmp/rwlock; without that record nothing happens.

    Raises:
        PipelineError: it happened before.
    """
    import psutil  # 40 ms, which processes that dvc did not start can do without

    try:
        record = json.loads(_DVC_RECORD.read_bytes())
    except (OSError, ValueError):  # another version of dvc, or one that is writing it at this moment
        return
    readers = (each for path in record.get("read", {}).values() for each in path)
    running = {each["pid"] for each in (*readers, *record.get("write", {}).values())}
    if not running:
        return
    dvc = next((each for each in psutil.Process().parents() if each.pid in running), None)
    if dvc is None:
        raise PipelineError("dvc was killed before its stage began; run it again")

    def follow() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while dvc.is_running() and dvc.status() != psutil.STATUS_ZOMBIE:  # a container may reap nobody
                time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()


def run_tool(
    argv: Sequence[str | os.PathLike[str]],
    *,
    what: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a program to its end and return what it printed on standard output.

    `what` names the work in the error ("quantizing to Q4_K_M"). A program that fails or is not there is a
    `PipelineError` with the last line it wrote.
    """
    try:
        done = subprocess.run(
            [os.fspath(part) for part in argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=dict(env) if env is not None else None,
            cwd=cwd,
            preexec_fn=die_with_parent,
        )
    except OSError as error:
        raise PipelineError(f"{what}: cannot start {argv[0]}: {error.strerror}") from None
    if done.returncode != 0:
        raise PipelineError(f"{what}: {Path(argv[0]).name} {_ending(done.returncode)}: {_last_line(done)}")
    return done.stdout


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit status {code}"


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
