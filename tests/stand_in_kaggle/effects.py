"""What a fault does, each a small value: to a request, to the bytes of a file, or behind the requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


# --- what happens to a request
@dataclass(frozen=True)
class DropBefore:
    """The connection is closed before anything was done."""


@dataclass(frozen=True)
class DropAfter:
    """The server acts, then the connection is closed without an answer."""


@dataclass(frozen=True)
class HangBefore:
    """Nothing is done or answered until the fault is lifted; then the connection is closed."""


@dataclass(frozen=True)
class HangAfter:
    """The server acts, but does not answer until the fault is lifted; then the connection is closed."""


@dataclass(frozen=True)
class Refuse:
    """This answer instead of the action."""

    status: int
    body: Mapping[str, Any]
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class RefuseAfter:
    """The server acts, but this is its answer."""

    status: int
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Alter:
    """The server acts; its answer gets the fields of `put` and loses those of `omit`."""

    put: Mapping[str, Any] = field(default_factory=dict)
    omit: tuple[str, ...] = ()


# --- what happens to bytes
@dataclass(frozen=True)
class Interrupt:
    """An upload is answered 503 when half of what it sends has been kept."""


@dataclass(frozen=True)
class Cut:
    """Half a file's bytes come, then the connection closes; Content-Length had promised all."""


@dataclass(frozen=True)
class Shorten:
    """Half a file's bytes come, and Content-Length agrees with them."""


@dataclass(frozen=True)
class FlipByte:
    """A file's first byte is another one."""


# --- what happens behind the requests
@dataclass(frozen=True)
class EndProcessing:
    """A dataset version stays in this state for good."""

    state: str


@dataclass(frozen=True)
class InvalidSource:
    """A dataset that is there is called invalid, and the run starts without it."""


@dataclass(frozen=True)
class BindPrevious:
    """The version before the current one is mounted, as if the current one were not there yet."""


@dataclass(frozen=True)
class PushAnother:
    """Somebody else with the same account pushes a version of the same kernel, right after this one."""

    source_line: str = "print('another version')"


@dataclass(frozen=True)
class NoRun:
    """`No runs found` for so long, in real seconds; None: no run is ever made."""

    seconds: float | None


@dataclass(frozen=True)
class IgnoreLabel:
    """The latest version is meant, whichever the request names."""


@dataclass(frozen=True)
class Machine:
    """The session gets these GPUs instead of those asked for."""

    gpus: tuple[str, ...]


@dataclass(frozen=True)
class End:
    """Kaggle ends the run once its log has a line with `at` in it ('': the first line)."""

    state: str
    message: str
    at: str = ""


@dataclass(frozen=True)
class StayRunning:
    """The run ends and is saved, but its status stays RUNNING (#473)."""


@dataclass(frozen=True)
class Unmounted:
    """The input folder is empty."""


@dataclass(frozen=True)
class OldLayout:
    """Datasets lie in /kaggle/input/<slug>, as they did before 2026."""


@dataclass(frozen=True)
class SpoilInputs:
    """A byte of every mounted file with this suffix is another one."""

    suffix: str


@dataclass(frozen=True)
class LoseFiles:
    """Output files with this suffix are not kept ('': none is)."""

    suffix: str


@dataclass(frozen=True)
class LoseLog:
    """The log is not kept."""
