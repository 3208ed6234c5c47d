"""Child processes that never outlive the stage that started them."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.common.errors import PipelineError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

PATIENT_THREADS = {"GOMP_SPINCOUNT": "20000"}
"""Environment of programs whose OpenMP threads wait for each other: they spin for a moment, then sleep.

Spinning without end, libgomp's default, costs most of the other core as soon as anything else takes one away
(training: 25 s a step instead of 0.5). Sleeping at once (OMP_WAIT_POLICY=passive) costs a third to a half of the
speed on free cores (19 examples/s instead of 25 to 32).
"""


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere nothing happens).

    Without it a `kill -9` of dvc leaves the stage running, and the next `dvc repro` starts a second one beside
    it. Usable as `preexec_fn`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def is_orphan() -> bool:
    """Whether the process that started this one, in its own session, has died: who adopts it is of another."""
    try:
        return os.getsid(0) != os.getpid() and os.getsid(os.getppid()) != os.getsid(0)
    except ProcessLookupError:  # it dies at this very moment
        return True
    except PermissionError:
        return False


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
