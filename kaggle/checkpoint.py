"""Checkpoints: what a killed run needs to go on as if nothing had happened.

A checkpoint lies under the digest of everything that is trained, so that it can never be continued with other
data, another base, other settings or another trainer. Beside it, `checkpoint.json` vouches for it, for those who
find it where a session was cut off: its sha256, the run it is of and how far that has come.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

_FILE = "checkpoint.pt"
_VOUCHER = "checkpoint.json"


def file_digests(paths: list[Path]) -> dict[str, str]:
    """The sha256 of each file, by file name."""
    digests = {}
    for path in paths:
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def run_key(facts: dict[str, Any]) -> str:
    """A short name for a run made of `facts` (JSON values)."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


class Checkpoints:
    """The newest state of one run, in `root/key`; `run_id` is what its voucher says it is of."""

    def __init__(self, root: Path, key: str, run_id: str) -> None:
        self.directory, self.run_id = root / key, run_id

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last, in main memory, or None."""
        path = self.directory / _FILE
        return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None

    def save(self, state: dict[str, Any], progress: float) -> None:
        """Replace the state; a run killed meanwhile leaves the previous one whole. `progress` is 0 to 1."""
        self.directory.mkdir(parents=True, exist_ok=True)
        partial = self.directory / f".{_FILE}.partial"
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        digest = file_digests([partial])[partial.name]
        voucher = {"run_id": self.run_id, "progress": round(progress, 4), "sha256": digest}
        vouching = self.directory / f".{_VOUCHER}.partial"
        vouching.write_text(json.dumps(voucher), encoding="utf-8")
        partial.replace(self.directory / _FILE)
        vouching.replace(self.directory / _VOUCHER)

    def remove(self) -> None:
        """The run is finished: nothing will go on from here."""
        shutil.rmtree(self.directory, ignore_errors=True)
