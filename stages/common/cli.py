"""The edge of every stage: one lock, one place where errors become one line and an exit status."""

import errno
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from stages.common import inputs, interrupts
from stages.common.errors import PipelineError

_LOCKS = Path(".cache/locks")
_LOCK_PATIENCE_S = 20.0  # a killed stage needs a moment to let go of a large allocation


@contextmanager
def stage_lock(stage: str) -> Iterator[None]:
    """Hold the stage's lock, so that no stage runs twice at once in one work tree.

    Raises:
        PipelineError: another process holds it and does not let go.
    """
    _LOCKS.mkdir(parents=True, exist_ok=True)
    with (_LOCKS / f"{stage}.lock").open("a+") as file:
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise PipelineError(
                        f"{stage}: already running here as process {file.read().strip() or 'unknown'}; "
                        "wait for it or end it, then run again"
                    ) from None
                time.sleep(0.2)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def one_line(error: Exception) -> str:
    """The line a user reads for an error that a stage can meet; unknown errors are not swallowed here."""
    if isinstance(error, OSError):
        where = f" on {error.filename}" if error.filename else ""
        if error.errno == errno.ENOSPC:
            return f"the disk is full{where}; free some space and run again: finished stages are kept"
        if error.errno == errno.EPIPE:
            return "the program that reads its output has ended; run again without it"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return (
                f"{error.strerror}{where} in {Path.cwd()}; run as the owner of this folder, "
                "or copy it to where you may write"
            )
        return f"{error.strerror or error}{where}"
    return " ".join(str(error).split("\n"))


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was refused, to Python or to torch, whose allocator says so in words only."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def run_stage(stage: str, main: Callable[[], None], failed: int = 1) -> None:
    """Run a stage's `main` and end the process: 0 when it returns, one line and a status on an error it foresaw.

    `failed` is the status of an error that has none of its own. A stage whose inputs were changed while it was at
    work has failed (`inputs.py`). A `SystemExit` raised by `main` keeps its status. Any other exception is a
    defect of ours and keeps its traceback.
    """
    interrupts.stop_in_order(stage)
    try:
        with stage_lock(stage):
            main()
            inputs.require_unchanged(stage)
        sys.stdout.flush()
        interrupts.ignore()
    except BrokenProcessPool:
        print(
            f"{stage}: error: a process of this stage was killed; free some memory and run again", file=sys.stderr
        )
        sys.exit(failed)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"{stage}: error: there is not enough memory; free some and run again", file=sys.stderr)
        sys.exit(failed)
    except (PipelineError, OSError) as error:
        print(f"{stage}: error: {one_line(error)}", file=sys.stderr)
        _give_up_stdout()
        sys.exit(getattr(error, "exit_status", None) or failed)
    except KeyboardInterrupt:
        interrupts.say_stopped(stage)
        sys.exit(interrupts.STATUS)


def _give_up_stdout() -> None:
    """Where standard output takes no more, let Python's last flush go nowhere: it would exit with 120 instead."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
