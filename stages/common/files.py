"""Files that are either whole or absent: everything is written beside its name, then renamed over it."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from stages.common.errors import PipelineError

_BLOCK = 1 << 20


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _partial(path: Path) -> Path:
    """A new name beside `path`, after removing what killed runs left under such names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{path.name}.partial-*"):
        _remove(stale)
    return path.parent / f".{path.name}.partial-{uuid.uuid4().hex[:8]}"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush a file or a directory entry to disk, so that a rename never outlives the bytes it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replace_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that becomes `path` when the block ends well and vanishes when it does not."""
    partial = _partial(path)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with partial.open(mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        _remove(partial)
        raise
    _sync(path.parent)


@contextmanager
def replace_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory that becomes `path` when the block ends well and vanishes when it does not."""
    partial = _partial(path)
    partial.mkdir()
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                _sync(file)
        _remove(path)
        partial.replace(path)
    except BaseException:
        _remove(partial)
        raise
    _sync(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON; a NaN or an infinity is a `ValueError`, since JSON has none."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with replace_file(path) as file:
        file.write(text + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or malformed one is a `PipelineError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"{path}: not there; run `dvc repro`, which makes it") from None
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise PipelineError(f"{path}:{error.lineno}: not JSON: {error.msg}; mend or delete it") from None


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line number from 1, row)` for each line; the first bad line is a `PipelineError` that names it."""
    try:
        lines = path.open("rb")
    except FileNotFoundError:
        raise PipelineError(f"{path}: not there; run `dvc repro`, which makes it") from None
    with lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise PipelineError(
                    f"{path}:{number}: not UTF-8 at byte {error.start}; save the file as UTF-8"
                ) from None
            except json.JSONDecodeError as error:
                raise PipelineError(
                    f"{path}:{number}: not JSON: {error.msg} at column {error.colno}; mend or delete the line"
                ) from None
            if not isinstance(row, dict):
                raise PipelineError(f"{path}:{number}: not a JSON object; one row is one object in braces")
            yield number, row


def save_weights(weights: Mapping[str, Any], path: Path) -> None:
    """Write tensors by name as safetensors, whose own error hides what is wrong with the disk.

    Raises:
        OSError: the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(weights), path, metadata={"format": "pt"})
    except SafetensorError as error:
        if f"os error {errno.ENOSPC}" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise
