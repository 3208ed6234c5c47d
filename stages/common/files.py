"""Files that are either whole or absent: everything is written beside its name, then renamed over it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from stages.common.errors import PipelineError

if TYPE_CHECKING:
    import yaml  # at run time only where it is used: `make venv` comes before any package

FROM_GIT = "restore it from git, and run from the repository's root"
FROM_REPRO = "run `dvc repro`, which makes it"

_BLOCK = 1 << 20
_JSON_KEY = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[{}]')


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _beside(path: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """Make something beside `path` that is gone after the block, unless it was renamed in it.

    It is locked from before anything is written until its name is gone, and a lock ends with its process: so what
    killed runs left under such names is told from what another run is writing at this moment, and removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for found in path.parent.glob(f".{path.name}.partial-*"):
        _remove_if_stale(found)
    partial, descriptor = _made_and_locked(path, make)
    try:
        yield partial
    finally:
        _remove(partial)
        os.close(descriptor)


def _made_and_locked(path: Path, make: Callable[[Path], object]) -> tuple[Path, int]:
    while True:
        partial = path.parent / f".{path.name}.partial-{uuid.uuid4().hex[:8]}"
        make(partial)
        try:
            descriptor = os.open(partial, os.O_RDONLY)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if partial.exists():  # another process may have taken it for stale before it was locked
            return partial, descriptor
        os.close(descriptor)


def _remove_if_stale(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # its process has just finished
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(path)
    except BlockingIOError:
        return
    finally:
        os.close(descriptor)


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
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with _beside(path, Path.touch) as partial:
        with partial.open(mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    _sync(path.parent)


@contextmanager
def replace_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory that becomes `path` when the block ends well and vanishes when it does not."""
    with _beside(path, Path.mkdir) as partial:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                _sync(file)
        _remove(path)
        partial.replace(path)
    _sync(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON; a NaN or an infinity is a `ValueError`, since JSON has none."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with replace_file(path) as file:
        file.write(text + "\n")


@contextmanager
def scratch_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory beside `path` that is gone after the block; so are those of killed runs."""
    with _beside(path, Path.mkdir) as scratch:
        yield scratch


def read_json(path: Path, *, remedy: str = FROM_REPRO) -> Any:
    """Read a JSON file in which no object has a key twice; `remedy` is what to do if it is not there.

    Raises:
        PipelineError: it is missing or malformed; names the line.
    """
    text = _read_text(path, remedy)
    try:
        return json.loads(text, object_pairs_hook=_each_key_once)
    except _TwiceError:
        line, key = _second_key(text)
        raise PipelineError(f"{path}:{line}: the key {key!r} is there twice; remove or merge one") from None
    except json.JSONDecodeError as error:
        raise PipelineError(f"{path}:{error.lineno}: not JSON: {error.msg}; correct or delete it") from None
    except (RecursionError, ValueError) as error:  # brackets in brackets without end, a number of 5,000 digits
        raise PipelineError(f"{path}: not JSON that can be read: {_reason(error)}; correct or delete it") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """As `read_json`, of a file whose content is an object.

    Raises:
        PipelineError: it is missing, malformed or no object.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise PipelineError(f"{path}: no JSON object; delete it and {FROM_REPRO}")
    return content


def read_yaml(path: Path) -> Any:
    """Read a YAML file in which no mapping has a key twice; PyYAML itself would take the second without a word.

    Raises:
        PipelineError: it is missing or malformed; names the line.
    """
    import yaml

    text = _read_text(path, FROM_GIT)
    loader = None
    try:
        # libyaml's parser, where PyYAML was built with it
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        document = loader.get_single_node()
        if document is None:
            return None
        _require_each_key_once(document, path)
        return loader.construct_document(document)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise PipelineError(f"{path}{line}: not YAML: {reason}; correct the line") from None
    except (RecursionError, ValueError) as error:  # a date in a 13th month
        raise PipelineError(f"{path}: not YAML that can be read: {error}; correct it") from None
    finally:
        if loader is not None:
            loader.dispose()


def _read_text(path: Path, remedy: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PipelineError(f"{path}: not there; {remedy}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise PipelineError(f"{path}:{line}: not UTF-8; save it as UTF-8") from None


def _require_each_key_once(document: yaml.Node, path: Path) -> None:
    """Look through the nodes as they are written, before a merge key (`<<`) rightly adds what they override."""
    import yaml

    waiting, looked_at = [document], set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.ScalarNode) or id(node) in looked_at:
            continue
        looked_at.add(id(node))  # an alias is the node itself, and may be in itself
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
            continue
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, value in node.value:
            waiting.append(value)
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (other := first.setdefault((key.tag, key.value), key)) is not key:
                raise PipelineError(
                    f"{path}:{key.start_mark.line + 1}: the key {key.value!r} is there twice, first in line "
                    f"{other.start_mark.line + 1}; remove or merge one"
                )


def _reason(error: Exception) -> str:
    """Why Python cannot read it, without its advice to programmers (`use sys.set_int_max_str_digits()`)."""
    return str(error).partition(";")[0]


class _TwiceError(ValueError):
    """A key of a JSON object is there twice; where, the parser does not tell."""


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _TwiceError
    return found


def _second_key(text: str) -> tuple[int, str]:
    """The line and the name of the first key that its object already has, in well-formed JSON."""
    open_objects: list[set[str]] = []
    for token in _JSON_KEY.finditer(text):
        if token[0] == "{":
            open_objects.append(set())
        elif token[0] == "}":
            open_objects.pop()
        elif token[2]:
            key = json.loads(token[1])
            if key in open_objects[-1]:
                return text.count("\n", 0, token.start()) + 1, key
            open_objects[-1].add(key)
    raise AssertionError("the parser found a key twice")


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line number from 1, row)` for each line; the first bad line is a `PipelineError` that names it."""
    try:
        lines = path.open("rb")
    except FileNotFoundError:
        raise PipelineError(f"{path}: not there; {FROM_REPRO}") from None
    with lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line.decode("utf-8"), object_pairs_hook=_each_key_once)
            except _TwiceError:
                key = _second_key(line.decode("utf-8"))[1]
                raise PipelineError(f"{path}:{number}: the key {key!r} is there twice; correct the line") from None
            except UnicodeDecodeError as error:
                raise PipelineError(
                    f"{path}:{number}: not UTF-8 at byte {error.start}; save the file as UTF-8"
                ) from None
            except json.JSONDecodeError as error:
                raise PipelineError(
                    f"{path}:{number}: not JSON: {error.msg} at column {error.colno}; mend or delete the line"
                ) from None
            except (RecursionError, ValueError) as error:
                raise PipelineError(f"{path}:{number}: not JSON that can be read: {_reason(error)}") from None
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
