"""Checkpoints: what a killed run needs to go on as if nothing had happened.

A checkpoint lies under the digest of everything that changes the result, so that it can never be continued with
other data, another base, other settings or another trainer.
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
    """The newest state of one run, in `root/key`."""

    def __init__(self, root: Path, key: str) -> None:
        self.directory = root / key

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last, or None."""
        path = self.directory / _FILE
        return torch.load(path, weights_only=True) if path.is_file() else None

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state; a run killed meanwhile leaves the previous one whole."""
        self.directory.mkdir(parents=True, exist_ok=True)
        partial = self.directory / f".{_FILE}.partial"
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.directory / _FILE)

    def remove(self) -> None:
        """The run is finished: nothing will go on from here."""
        shutil.rmtree(self.directory, ignore_errors=True)
