"""Signed URLs of output files: a path that nobody can guess, which stops to work after a while."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class _Signed:
    path: Path
    until: float


class SignedUrls:
    """All URLs signed so far, each good for `life_s` real seconds."""

    def __init__(self, life_s: float) -> None:
        self.url = ""
        self._life_s = life_s
        self._signed: dict[str, _Signed] = {}

    def sign(self, path: Path) -> str:
        """A URL for a file."""
        secret = secrets.token_hex(16)
        self._signed[secret] = _Signed(path, time.monotonic() + self._life_s)
        return f"{self.url}/signed/{secret}"

    def resolve(self, secret: str) -> Path | None:
        """The file of a URL; None when it has expired or never was."""
        entry = self._signed.get(secret)
        return entry.path if entry and time.monotonic() < entry.until else None
