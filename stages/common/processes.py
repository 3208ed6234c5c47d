"""Processes that never outlive those that started them: a stage its dvc, a child process its stage."""

import contextlib
import ctypes
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.common import interrupts
from stages.common.errors import PipelineError

_DVC_RECORD = Path(".dvc/tmp/rwlock")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_TERM_PATIENCE_S = 0.7  # what a program may take to end by itself; within that of interrupts.py

PATIENT_THREADS = {"GOMP_SPINCOUNT": "20000"}
"""Environment of a training, whose OpenMP threads wait for each other: they spin for a moment, then sleep.

Spinning without end, libgomp's default, costs most of the other core as soon as anything else takes one away
(training: 25 s a step instead of 0.5). Sleeping at once (OMP_WAIT_POLICY=passive) costs a third to a half of the
speed on free cores (19 examples/s instead of 25 to 32).
"""


def load_torch() -> None:
    """Load torch into this process with threads that are as patient as those of a training.

    libgomp reads the environment once, as torch loads it. What this process starts later does not inherit the
    setting: llama.cpp's tools have their own. A value of the user's own counts.
    """
    given = {name: os.environ[name] for name in PATIENT_THREADS if name in os.environ}
    os.environ.update(PATIENT_THREADS | given)
    importlib.import_module("torch")
    for name in PATIENT_THREADS.keys() - given:
        del os.environ[name]


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere nothing happens).

    Without it a `kill -9` leaves the child running, and the next run starts a second one beside it. Usable as
    `preexec_fn`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def is_to_outlive_parent() -> bool:
    """Whether this process was started so that it goes on when its shell has ended: by `nohup` or `setsid`."""
    return signal.getsignal(signal.SIGHUP) is signal.SIG_IGN or os.getsid(0) == os.getpid()


def open_standard_streams() -> None:
    """Let what was closed by whoever started this process (`>&-`) lead nowhere.

    Python has no `sys.stdout` then, and the next file that is opened takes its number: it would get what a child
    prints.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


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


@contextmanager
def program(
    argv: Sequence[str | os.PathLike[str]], *, what: str, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Run a program that ends with the block, and with it all that it has started.

    It has a session of its own, so that a terminal's Ctrl-C goes to this process alone, and dies with it.
    `options` are those of `subprocess.Popen`.

    Raises:
        PipelineError: it cannot be started.
    """
    process = None
    try:
        with interrupts.held():
            try:
                process = subprocess.Popen(
                    [os.fspath(part) for part in argv],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                    **options,
                )
            except OSError as error:
                raise PipelineError(f"{what}: cannot start {argv[0]}: {error.strerror}") from None
        yield process
    finally:
        if process is not None:
            with process:
                if process.poll() is None:
                    _end(process)


def _end(process: subprocess.Popen[Any]) -> None:
    """End a program of a session of its own, and what it has started (a compiler of make's)."""
    os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_TERM_PATIENCE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def worker_pool(initializer: Callable[..., None], initargs: tuple = ()) -> Iterator[ProcessPoolExecutor]:
    """Forked workers, one a core, which Ctrl-C does not reach and which are killed where the block fails."""
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(os.cpu_count(), context, initializer=initializer, initargs=initargs)
    try:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pool.submit(int).result()  # all are forked now, and keep the signal blocked
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield pool
    except BaseException:
        for worker in multiprocessing.active_children():
            worker.kill()
        # Nobody reads the queue any more. While we hold its reading end open, a thread of the pool that writes
        # more to it than a pipe holds waits for ever, and `shutdown` for that thread (CPython #94777).
        pool._call_queue._reader.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)  # and wait: 3.11 prints a traceback of a pool left at exit


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
    with program(
        argv,
        what=what,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=dict(env) if env is not None else None,
        cwd=cwd,
    ) as process:
        output, complaint = process.communicate()
    if process.returncode != 0:
        reason = _last_line(complaint or output)
        raise PipelineError(f"{what}: {Path(argv[0]).name} {_ending(process.returncode)}: {reason}")
    return output


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit status {code}"


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
