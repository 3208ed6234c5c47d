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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_FILE = "checkpoint.pt"
_VOUCHER = "checkpoint.json"
_FILE_BEFORE, _VOUCHER_BEFORE = "before.pt", "before.json"


class CheckpointError(Exception):
    """One line: why no checkpoint could be written, and what to do."""


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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class Checkpoints:
    """The newest two states of one run, in `root/key`; `run_id` is what their vouchers say they are of.

    `load` goes by the vouchers: a checkpoint that does not have its sha256, cannot be read or is of another run
    (its key is another one) is renamed to `checkpoint.pt.damaged` and the one before takes its place.
    """

    def __init__(self, root: Path, key: str, run_id: str, report: Callable[[str], None] = print) -> None:
        """`report` takes the lines that a person should see."""
        self.directory, self.run_id, self.report = root / key, run_id, report

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole, in main memory; None where there is none."""
        for name, voucher in ((_FILE, _VOUCHER), (_FILE_BEFORE, _VOUCHER_BEFORE)):
            path = self.directory / name
            if not path.is_file():
                continue
            try:
                vouched = json.loads((self.directory / voucher).read_text(encoding="utf-8"))
                if vouched["key"] != self.directory.name:
                    reason = "it is of another run"
                elif file_digests([path])[name] != vouched["sha256"]:
                    reason = "its sha256 is not that of its voucher"
                else:
                    return torch.load(path, map_location="cpu", weights_only=True)
            except (OSError, ValueError, KeyError, TypeError) as error:
                reason = f"{voucher}: {_first_line(error)}"
            aside = path.with_name(f"{name}.damaged")
            path.replace(aside)
            self.report(f"{aside}: set aside ({reason}); training goes on from the one before, or starts anew")
        return None

    def save(self, state: dict[str, Any], progress: float) -> None:
        """Add a state; the one before the last goes. A run killed meanwhile leaves the others whole.

        `progress` is 0 to 1.

        Raises:
            CheckpointError: the disk is full, or cannot be written to.
        """
        partial = self.directory / f".{_FILE}.partial"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            digest = file_digests([partial])[partial.name]
            vouching = self.directory / f".{_VOUCHER}.partial"
            said = {"run_id": self.run_id, "key": self.directory.name, "progress": round(progress, 4)}
            vouching.write_text(json.dumps({**said, "sha256": digest}), encoding="utf-8")
            self._keep_last()
            partial.replace(self.directory / _FILE)
            vouching.replace(self.directory / _VOUCHER)
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
            partial.unlink(missing_ok=True)
            raise CheckpointError(
                f"{self.directory}: no checkpoint can be written ({_first_line(error)}); free some space and run "
                "again: training goes on from the checkpoint before"
            ) from None

    def _keep_last(self) -> None:
        """Copy the last checkpoint over the one before, its voucher last; a kill leaves the last one whole."""
        for name, before in zip((_FILE, _VOUCHER), (_FILE_BEFORE, _VOUCHER_BEFORE), strict=True):
            if not (self.directory / name).is_file():
                return
            partial = self.directory / f".{before}.partial"
            shutil.copyfile(self.directory / name, partial)
            partial.replace(self.directory / before)

    def remove(self) -> None:
        """The run is finished: nothing will go on from here."""
        shutil.rmtree(self.directory, ignore_errors=True)
