"""Ctrl-C: one line and status 130 within two seconds, whatever a stage is at.

A terminal sends SIGINT to all processes of its foreground group. Of ours only the stage itself takes it: the
programs and workers that it starts are kept out of it (`processes.py`) and are ended by the stage on its way out.

A `KeyboardInterrupt` is raised between two instructions of Python. A long call into C delays it and a `__del__`
swallows it, so a thread waits for the signal as well. As long as nothing is raised it sends it to the main thread
again: a signal just before a system call, or one that another thread got, does not end that call. When the
patience is over it ends the process. What such an end leaves behind, the next run removes.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 130  # 128 + SIGINT, as shells count
PATIENCE_S = 1.5
_AGAIN_S = 0.05

_raised = threading.Event()
_held = threading.Event()
_saying = threading.Lock()  # never released: who gets it prints the line


def say_stopped(stage: str) -> None:
    """Print the line, once a process, below a progress bar that was cut off or the `^C` that a terminal echoes."""
    if _saying.acquire(blocking=False):
        sys.stderr.flush()
        os.write(2, f"\n{stage}: stopped; run again to go on\n".encode())


def leave_at_once(stage: str) -> None:
    """Until `stop_in_order` is called, Ctrl-C ends the process on the spot: it imports and has begun nothing."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        say_stopped(stage)
        os._exit(STATUS)

    if _can_be_interrupted():
        signal.signal(signal.SIGINT, leave)


def stop_in_order(stage: str) -> None:
    """From now on the first Ctrl-C is a `KeyboardInterrupt`; further ones cannot cut short what it sets off."""
    if not _can_be_interrupted():
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGINT, _raise_once)
    # the C part of the handler writes to it at once, whatever the main thread is at
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_end_after_patience, args=(reader, stage), daemon=True).start()


@contextmanager
def held() -> Iterator[None]:
    """Ctrl-C in the block is raised after it; for something short that must not be left half done.

    with held():
        process = subprocess.Popen(...)  # interrupted, it would leave a program that nobody knows of
    """
    if threading.current_thread() is not threading.main_thread():  # nothing is raised in others
        yield
        return
    _held.set()
    try:
        yield
    finally:
        _held.clear()


def ignore() -> None:
    """The work is done and the process about to end well: Ctrl-C can stop nothing any more."""
    if _can_be_interrupted():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _can_be_interrupted() -> bool:
    """Not where it was started to ignore Ctrl-C (`nohup`, `&` in a script)."""
    return signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def _raise_once(_signal: int, _frame: FrameType | None) -> None:
    if not _raised.is_set() and not _held.is_set():  # what is held now comes again in a moment
        _raised.set()
        raise KeyboardInterrupt


def _end_after_patience(reader: int, stage: str) -> None:
    while os.read(reader, 1) != bytes([signal.SIGINT]):
        pass
    ends = time.monotonic() + PATIENCE_S
    while not _raised.wait(_AGAIN_S) and time.monotonic() < ends:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    time.sleep(max(0.0, ends - time.monotonic()))
    say_stopped(stage)
    os._exit(STATUS)
