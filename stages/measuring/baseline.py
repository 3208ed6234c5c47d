"""What the gate compares with: a commit, and the figures that it holds.

`gate.baseline` in params.yaml is a revision such as `v1.2`, or `auto`: among the commits of the main branch that
the work tree's branch has, the newest whose figures are not those of the work tree. The newest commit first:

    main    D  README                 feature    F  figures 3
            C  figures 2                         E  an option
            B  README                            C  (the merge base)
            A  figures 1

On `feature` the figures 3 are compared with C, before they are committed as F and afterwards. On `main`, figures
that were just made are compared with C, and once they are committed still with C; the figures 2 themselves, in C
and in D, are compared with A. It is always the commit that brought the figures, so no other commit re-judges them.
"""

import json
import math
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AUTO = "auto"
_MAIN = ("main", "origin/main", "master", "origin/master")
_UNSHALLOW = "this clone has only a part of the history; run `git fetch --unshallow`"
_SET = "or set gate.baseline in params.yaml to a revision"

Figures = dict[str, Any]


class IncomparableError(Exception):
    """There may be figures to compare with, but they cannot be found or read; the message says what to do."""


@dataclass(frozen=True)
class Baseline:
    """The commit and its figures; without a commit there is nothing yet to compare with.

    `problem` says why it could not be found or read.
    """

    revision: str
    commit: str | None = None
    figures: Figures = field(default_factory=dict)
    problem: str | None = None


def find_baseline(revision: str, quant: str, compared: dict[Path, str]) -> Baseline:
    """The baseline of one quant; `compared` has the figure of each metrics file without which it cannot be one."""
    commit = None
    try:
        commit = find_commit(revision, list(compared))
        figures = _figures(commit, quant, compared) if commit else {}
    except IncomparableError as error:
        return Baseline(revision, commit, problem=str(error))
    return Baseline(revision, commit, figures)


def find_commit(revision: str, files: Sequence[Path]) -> str | None:
    """The commit to compare the figures in `files` with; None where no commit has any others.

    Raises:
        IncomparableError: no repository, no such revision, no main branch, or not enough of the history.
    """
    if _git("rev-parse", "--git-dir") is None:
        raise IncomparableError(
            "this is no git repository; get the project with `git clone`, or make it one as the README says"
        )
    if revision != AUTO:
        if commit := _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"):
            return commit
        raise IncomparableError(f"gate.baseline: git knows no {revision!r}; fetch it, or set another revision")
    head = _git("rev-parse", "--verify", "--quiet", "HEAD", here=True)
    if head is None:
        return None
    mains = [name for name in _MAIN if _git("rev-parse", "--verify", "--quiet", name)]
    if not mains:
        raise IncomparableError(f"no branch main, here or of origin; run `git fetch origin main:main`, {_SET}")
    is_shallow = _git("rev-parse", "--is-shallow-repository") == "true"
    start = _newest(base for name in mains if (base := _git("merge-base", head, name)))
    if start is None:
        raise IncomparableError(
            _UNSHALLOW if is_shallow else f"no common history with {mains[0]}; merge it, {_SET}"
        )
    present = _blobs_here(files)
    names = [path.as_posix() for path in files]
    for commit in (_git("log", "--first-parent", "--format=%H", start, "--", *names) or "").split():
        if (blobs := _blobs(commit, names)) and blobs != present:
            return commit
    if is_shallow:
        raise IncomparableError(_UNSHALLOW)
    return None


def _newest(commits: Iterable[str]) -> str | None:
    """Of commits of one history, the one that has all others; a local main may be behind that of origin."""
    newest = None
    for commit in commits:
        if newest is None or _git("merge-base", "--is-ancestor", newest, commit) is not None:
            newest = commit
    return newest


def finite(value: Any) -> float | None:
    """The figure as a float; None for one that is missing, null, NaN, infinite or no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def amount(value: Any) -> float | None:
    """As `finite`, of what cannot be negative: None where it is."""
    figure = finite(value)
    return figure if figure is not None and figure >= 0 else None


def count(value: Any) -> int | None:
    """The figure as a number of rows; None for what cannot be one: 0, -1, 20.5, 1e308, or nothing."""
    figure = finite(value)
    return int(figure) if figure is not None and 1 <= figure < 2**53 and figure.is_integer() else None


def proportion(value: Any) -> float | None:
    """As `finite`, of a share or a rate: None for one that is not between 0 and 1."""
    figure = finite(value)
    return figure if figure is not None and 0 <= figure <= 1 else None


def _figures(commit: str, quant: str, compared: dict[Path, str]) -> Figures:
    """What the metrics files held at the commit, by `dvc metrics diff`.

    dvc exits with 0 whatever it finds, also where a file there is broken; a file that was not there then has no
    old figures, and figures that did not change are given only with `--all`.
    """
    argv = ["dvc", "metrics", "diff", commit, "--all", "--json", "--targets", *map(str, compared)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True)
    except OSError as error:
        raise IncomparableError(f"cannot start dvc: {error.strerror}") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise IncomparableError(lines[-1].removeprefix("ERROR: "))
    figures = {}
    for changes in json.loads(done.stdout).values():
        for name, change in changes.items():
            if name.startswith(f"{quant}.") and change.get("old") is not None:
                figures[name.removeprefix(f"{quant}.")] = change["old"]
    there = _blobs(commit, [path.as_posix() for path in compared])
    if not there:
        raise IncomparableError(f"{commit[:9]} has no figures of this size; {_SET[3:]} that has")
    for path, figure in compared.items():
        if finite(figures.get(figure)) is None and path.as_posix() in there:
            raise IncomparableError(f"{path} has no readable {quant}.{figure} in {commit[:9]}; {_SET[3:]}")
    return figures


def _blobs(commit: str, names: Sequence[str]) -> dict[str, str]:
    """The contents of those of the files that a commit has, by git's digest of each."""
    listed = (_git("ls-tree", commit, "--", *names) or "").splitlines()
    return {name: entry.split()[2] for entry, _, name in (line.partition("\t") for line in listed)}


def _blobs_here(files: Sequence[Path]) -> dict[str, str]:
    """The same for the work tree."""
    found = {path.as_posix(): _git("hash-object", "--", str(path), here=True) for path in files if path.is_file()}
    return {name: digest for name, digest in found.items() if digest}


def _git(*arguments: str, here: bool = False) -> str | None:
    """What git prints, in one text; None where it fails.

    An experiment in a folder of its own (`dvc exp run --temp`) has no branches; those of the repository that it
    belongs to are asked, unless it is about what is `here`.
    """
    folder = "." if here else os.environ.get("DVC_ROOT", ".")
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
