"""Are the adapter's files those that training wrote, and the base's those that it was trained from?

The adapter's `digests.json` says so: {"adapter": {file: sha256}, "base": {file: sha256}, …} (kaggle/run_files.py).
"""

from collections.abc import Mapping
from pathlib import Path

from stages.common.errors import PipelineError
from stages.common.files import read_json, read_yaml, sha256_file

DIGESTS = "digests.json"

_LOCK = Path("dvc.lock")
_OBJECTS = Path(".dvc/cache/files/md5")


def require_whole(adapter: Path, base: Path) -> None:
    """Compare the files of both folders with the digests that the adapter carries.

    Raises:
        PipelineError: a file is missing, damaged or another; names it, and what makes it again.
    """
    digests = read_json(adapter / DIGESTS)
    match digests:
        case {"adapter": {**of_adapter}, "base": {**of_base}} if of_adapter and of_base:
            _require_files(adapter, of_adapter, "not the file that training wrote")
            _require_files(base, of_base, "not the file that the adapter was trained from")
        case _:
            listed = adapter / DIGESTS
            raise PipelineError(f"{listed}: no digests of the adapter and of its base; {_remedy(listed)}")


def cached_object(path: Path) -> Path | None:
    """The file in dvc's cache that a file of an output comes from, by dvc.lock; None where there is none.

    dvc links its outputs to the cache, so damage to one is often damage to both; and what is in its cache dvc
    takes as whole: neither a checkout nor `dvc repro --force` would replace it (measured with 3.67).
    """
    stages = (read_yaml(_LOCK) or {}).get("stages", {}) if _LOCK.is_file() else {}
    for output in (each for stage in stages.values() for each in stage.get("outs", ())):
        out, digest = Path(output["path"]), output.get("md5", "")
        if not path.is_relative_to(out) or not digest:
            continue
        found = _OBJECTS / digest[:2] / digest[2:]
        if digest.endswith(".dir"):
            entries = read_json(found) if found.is_file() else []
            name = path.relative_to(out).as_posix()
            digests = [entry["md5"] for entry in entries if entry["relpath"] == name]
            found = _OBJECTS / digests[0][:2] / digests[0][2:] if digests else found
        return found if found.is_file() else None
    return None


def _require_files(folder: Path, digests: Mapping[str, str], complaint: str) -> None:
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file():
            raise PipelineError(f"{path}: not there; {_remedy(path)}")
        if sha256_file(path) != digest:
            raise PipelineError(f"{path}: {complaint}; {_remedy(path)}")


def _remedy(path: Path) -> str:
    damaged = " ".join(map(str, filter(None, (path.parent, cached_object(path)))))
    return f"remove it and dvc's copy, and make it again: rm -rf {damaged} && dvc repro"
