"""Faults in force: each strikes at its place, as often or as long as it says, until it is lifted.

A place is an RPC by its method's name, or one of the places below that belong to no single RPC.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace

UPLOAD = "upload"  # PUT of a file's bytes to the URL that StartBlobUpload gave
UPLOAD_QUERY = "upload query"  # the PUT without bytes that asks how many have come
DOWNLOAD = "download"  # GET of a signed output URL
STREAM = "stream"  # the live log
PROCESSING = "processing"  # a dataset version on its way to READY
BINDING = "binding"  # which dataset version a pushed kernel version gets
PUSHED = "pushed"  # just after a kernel version was saved
START = "start"  # between the push and the existence of a run
LABEL = "label"  # reading the version that a request names
SESSION = "session"  # the machine that a run gets, and how the run ends
INPUTS = "inputs"  # what lies under /kaggle/input
SAVING = "saving"  # the keeping of /kaggle/working and of the log

PLACES = frozenset(
    {UPLOAD, UPLOAD_QUERY, DOWNLOAD, STREAM, PROCESSING, BINDING, PUSHED, START, LABEL, SESSION, INPUTS, SAVING}
)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong. `times` None: always; `lasting_s`: real seconds from the first time on."""

    name: str
    place: str
    effect: object
    times: int | None = 1
    lasting_s: float | None = None


@dataclass
class Faults:
    """The faults in force. They can be added and lifted while the stand-in serves."""

    hits: Counter[str] = field(default_factory=Counter)
    _active: list[Fault] = field(default_factory=list)
    _since: dict[str, float] = field(default_factory=dict)
    _lifted: dict[str, threading.Event] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *faults: Fault) -> None:
        """From now on these strike, the first added first; a name can be in force once."""
        with self._lock:
            for new in faults:
                if any(old.name == new.name for old in self._active):
                    raise ValueError(f"fault `{new.name}` is in force already")
                self._active.append(new)
                self._since.pop(new.name, None)
                self._lifted[new.name] = threading.Event()

    def lift(self, name: str) -> None:
        """End a fault; requests that it holds go on."""
        with self._lock:
            self._active = [entry for entry in self._active if entry.name != name]
            self._lifted[name].set()

    def lift_all(self) -> None:
        """End every fault."""
        for name in list(self._lifted):
            self.lift(name)

    def take(self, place: str) -> Fault | None:
        """The fault that strikes here and now, if any; each call uses up one of its times."""
        with self._lock:
            for entry in self._active:
                if entry.place == place and not self._over(entry):
                    self._since.setdefault(entry.name, time.monotonic())
                    self.hits[entry.name] += 1
                    self._use(entry)
                    return entry
        return None

    def hold(self, held: Fault) -> None:
        """Wait until the fault is lifted."""
        self._lifted[held.name].wait()

    def _over(self, entry: Fault) -> bool:
        if entry.lasting_s is None or entry.name not in self._since:
            return False
        return time.monotonic() - self._since[entry.name] > entry.lasting_s

    def _use(self, entry: Fault) -> None:
        if entry.times is None:
            return
        left = [replace(entry, times=entry.times - 1)] if entry.times > 1 else []
        at = self._active.index(entry)
        self._active[at : at + 1] = left
