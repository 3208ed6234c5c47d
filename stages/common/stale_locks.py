"""Clears the lock that a killed dvc leaves behind, where dvc itself would not.

To run it: `python -m stages.common.stale_locks`. dvc 3.67 forgives a lock whose process is gone. It does not
forgive one whose process number was given to another program since, or is a zombie that nobody reaped (usual in
containers), nor a half-written lock file.
"""

import json
from pathlib import Path

import psutil

from stages.common.cli import run_stage

_RWLOCK = Path(".dvc/tmp/rwlock")


def holders(text: str) -> set[int]:
    """The process numbers named in an rwlock file; none if it is not whole.

    Its form: {"write": {path: {"pid", "cmd"}}, "read": {path: [{"pid", "cmd"}, …]}} (dvc/rwlock.py).
    """
    try:
        lock = json.loads(text)
    except json.JSONDecodeError:
        return set()
    writers = lock.get("write", {}).values()
    readers = [holder for group in lock.get("read", {}).values() for holder in group]
    return {holder["pid"] for holder in [*writers, *readers] if holder}


def is_running_dvc(pid: int) -> bool:
    """Whether the process lives and is dvc."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and any("dvc" in part for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def main() -> None:
    """Remove the lock file unless a live dvc is named in it."""
    if _RWLOCK.is_file() and not any(map(is_running_dvc, holders(_RWLOCK.read_text(encoding="utf-8")))):
        _RWLOCK.unlink()


if __name__ == "__main__":
    run_stage("stale_locks", main)
