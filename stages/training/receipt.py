"""What is known of a run on Kaggle, on disk before it is acted upon.

`.cache/kaggle/<digest>/receipt.json` lists the attempts. A receipt that is lost is made anew from what Kaggle
holds (`push.py`): it saves questions, it is never the only witness.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from stages.common.files import read_json, write_json

Phase = Literal["pushing", "pushed", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class Attempt:
    """One session: `pushing` was asked for, `pushed` is known to exist; then how it ended. Times in Unix seconds.

    `stopped` means to be continued, as `failed` does where there is a `checkpoint`: the folder it lies in, with
    the `progress` (0 to 1) that the run has made in it. `session_s`: what it took of the GPU, once it has ended.
    """

    number: int
    slug: str
    phase: Phase
    asked_at: float
    estimate_s: float
    timeout_s: int
    version: int = 0
    running_since: float | None = None
    checkpoint: str | None = None
    progress: float = 0.0
    session_s: float | None = None
    failure: str | None = None


class Receipt:
    """The attempts of one run, newest last; every change is written at once."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "receipt.json"
        listed = read_json(self._path) if self._path.is_file() else []
        self.attempts = [Attempt(**entry) for entry in listed]

    @property
    def last(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def session_s(self) -> float:
        """Seconds of all sessions that are known to have ended."""
        return sum(attempt.session_s or 0.0 for attempt in self.attempts)

    def add(self, attempt: Attempt) -> Attempt:
        """Note a new attempt."""
        self.attempts.append(attempt)
        self._write()
        return attempt

    def drop_last(self) -> None:
        """Forget an attempt that is known never to have come about."""
        self.attempts.pop()
        self._write()

    def update(self, **changes: object) -> Attempt:
        """Note what has become of the newest attempt."""
        self.attempts[-1] = replace(self.attempts[-1], **changes)
        self._write()
        return self.attempts[-1]

    def _write(self) -> None:
        write_json(self._path, [asdict(attempt) for attempt in self.attempts])
