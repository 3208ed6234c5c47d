"""A stage's inputs, as they were when it began and as they are at its end.

dvc hashes the deps and params of a stage after its command has ended. `seed: 202`, written into params.yaml while
a run with 101 is at work, would be recorded as what was used, and the stage would be up to date ever after. So a
stage notes what dvc.yaml lists for it before it reads anything (stages/__init__.py), and fails if that has changed
at its end.

A file counts as unchanged if its size, its time of modification and its inode are. Where they are not (`touch`,
`git checkout` there and back) its content decides, by a digest taken at the beginning. Files beyond `HASHED_BYTES`
have none, since hashing a model of some GB takes longer than many a stage: written to at all, they have changed.
Nothing is compared where no dvc.yaml lists the stage, since nothing is recorded there either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.errors import PipelineError
from stages.common.files import read_yaml, sha256_file

PIPELINE = Path("dvc.yaml")
PARAMS = Path("params.yaml")
IGNORED = Path(".dvcignore")
HASHED_BYTES = 64 << 20

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_NAMED = 3  # changed inputs that the message names


@dataclass(frozen=True)
class Version:
    """One file at one moment."""

    stamp: tuple[int, int, int]
    """Size, time of modification, inode."""
    digest: str | None

    def is_of(self, path: Path) -> bool:
        """Whether the file is still the same."""
        try:
            stamp = _stamp(path)
            return stamp == self.stamp or (
                self.digest is not None and stamp[0] == self.stamp[0] and sha256_file(path) == self.digest
            )
        except FileNotFoundError:
            return False


@dataclass(frozen=True)
class Inputs:
    """What a stage was given."""

    deps: tuple[Path, ...]
    params: tuple[tuple[Path, str], ...]
    """Settings file and key, `(configs/135m.yaml, card.name)`; an empty key is the whole file."""
    files: Mapping[Path, Version]
    values: Mapping[tuple[Path, str], Any]

    def changed(self) -> list[str]:
        """The names of those that are no longer what they were."""
        values, files = _values(self.params), set(_files_of(self.deps))
        keys = [f"{name} in {path}" for path, name in self.params if values[path, name] != self.values[path, name]]
        edited = [path for path, version in self.files.items() if path not in files or not version.is_of(path)]
        return [*keys, *map(str, sorted({*edited, *(files - self.files.keys())}))]


_begun: dict[str, Inputs] = {}


def begin(stage: str) -> None:
    """Note the stage's inputs as they are now.

    Raises:
        PipelineError: dvc.yaml or a settings file is malformed.
    """
    if (noted := _note(stage)) is not None:
        _begun[stage] = noted


def require_unchanged(stage: str) -> None:
    """Hold the stage to what `begin` has noted, if it was called.

    Raises:
        PipelineError: an input was changed since; it names the first few.
    """
    if stage not in _begun or not (changed := _begun[stage].changed()):
        return
    more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    raise PipelineError(
        f"{', '.join(changed[:_NAMED])}{more}: changed while this stage was at work, so its outputs belong to "
        "neither version; run again"
    )


def _note(stage: str) -> Inputs | None:
    listed = (read_yaml(PIPELINE).get("stages") or {}).get(stage) if PIPELINE.is_file() else None
    if listed is None:
        return None
    settings = read_yaml(PARAMS) if PARAMS.is_file() else None

    def filled(text: str) -> Path:
        known = settings if isinstance(settings, dict) else {}
        return Path(_VARIABLE.sub(lambda variable: str(known.get(variable[1], variable[0])), text))

    deps = tuple(filled(each) for each in listed.get("deps", ()))
    params: list[tuple[Path, str]] = []
    for each in listed.get("params", ()):
        of_files = {str(PARAMS): [each]} if isinstance(each, str) else each
        params += [(filled(file), str(filled(key))) for file, keys in of_files.items() for key in keys or [""]]
    files = {path: version for path in _files_of(deps) if (version := _version(path)) is not None}
    return Inputs(deps, tuple(params), files, _values(params))


def _values(params: Sequence[tuple[Path, str]]) -> dict[tuple[Path, str], Any]:
    contents = {path: read_yaml(path) if path.is_file() else None for path, _ in params}
    return {(path, key): _value(contents[path], key) for path, key in params}


def _value(content: Any, key: str) -> Any:
    """What is at a dotted key; None where nothing is."""
    for part in key.split(".") if key else ():
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _files_of(deps: Sequence[Path]) -> Iterator[Path]:
    """The files that are deps or in such folders, but for what dvc ignores."""
    ignored = _ignored()
    for dep in deps:
        if not dep.is_dir():
            yield from (dep,) if dep.is_file() else ()
            continue
        for folder, _, names in os.walk(dep):
            yield from (path for name in names if not ignored(path := Path(folder, name)))


def _ignored() -> Callable[[Path], bool]:
    """What tells whether .dvcignore names a path."""
    import pathspec  # what dvc reads it with

    lines = IGNORED.read_text(encoding="utf-8").splitlines() if IGNORED.is_file() else []
    return pathspec.GitIgnoreSpec.from_lines(lines).match_file


def _version(path: Path) -> Version | None:
    try:
        stamp = _stamp(path)
        return Version(stamp, sha256_file(path) if stamp[0] <= HASHED_BYTES else None)
    except FileNotFoundError:  # removed in this moment: the stage will say so
        return None


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino
