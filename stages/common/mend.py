"""Mends what a killed dvc leaves behind, where dvc itself would not.

To run it, before `dvc repro`: `python -m stages.common.mend`. It is about two files.

- `.dvc/tmp/rwlock`, who uses which output. dvc 3.67 forgives an entry whose process is gone. It does not forgive
  one whose process number was given to another program since, or is a zombie that nobody reaped (usual in
  containers), nor a half-written file.
- `dvc.lock`, what each stage was last run on. dvc writes it in place, so that a kill in that moment leaves half of
  it or nothing, and every dvc command refuses it. The committed one takes its place: what was run since then is in
  dvc's run cache, where `dvc repro` finds it again.
"""

import json
import subprocess
import sys
from pathlib import Path

import psutil
from dvc.exceptions import DvcException
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils import strictyaml

from stages.common.cli import run_stage
from stages.common.errors import PipelineError
from stages.common.files import replace_file

_RWLOCK = Path(".dvc/tmp/rwlock")
_LOCK = Path("dvc.lock")
_DAMAGED = Path(".dvc/tmp/dvc.lock.damaged")


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
    """Whether the process lives and is dvc: `python …/bin/dvc repro`, `python -m dvc repro`; no `vim dvc.yaml`."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and any(
            Path(part).name == "dvc" for part in process.cmdline()[:4]
        )
    except psutil.NoSuchProcess:
        return False


def is_whole(path: Path) -> bool:
    """Whether dvc reads this as a dvc.lock (by its own parser and schema)."""
    try:
        strictyaml.load(str(path), schema=COMPILED_LOCKFILE_SCHEMA)
    except DvcException:
        return False
    return True


def committed() -> str | None:
    """The dvc.lock of the last commit; None without git, a commit or such a file in it."""
    shown = subprocess.run(["git", "show", f"HEAD:./{_LOCK}"], capture_output=True, encoding="utf-8")
    return shown.stdout if shown.returncode == 0 else None


def free_rwlock() -> None:
    """Remove the rwlock.

    Raises:
        PipelineError: a live dvc is named in it. dvc itself would say how to remove its lock.
    """
    if not _RWLOCK.is_file():
        return
    if running := sorted(filter(is_running_dvc, holders(_RWLOCK.read_text(encoding="utf-8")))):
        raise PipelineError(
            f"another dvc is at work in {Path.cwd()}: process {running[0]}; wait for it or end it, then run again"
        )
    _RWLOCK.unlink()


def restore_lock() -> None:
    """Replace a dvc.lock that is not whole by the committed one, if there is one; keep the damaged one aside."""
    if not _LOCK.is_file() or is_whole(_LOCK):
        return
    _DAMAGED.parent.mkdir(parents=True, exist_ok=True)
    _LOCK.replace(_DAMAGED)
    if (text := committed()) is not None:
        with replace_file(_LOCK) as file:
            file.write(text)
    print(f"dvc.lock was not whole and is the committed one again; what it was: {_DAMAGED}", file=sys.stderr)


def main() -> None:
    """Mend both."""
    free_rwlock()
    restore_lock()


if __name__ == "__main__":
    run_stage("mend", main)
