"""`make venv`: what this machine must have, checked first, then `.venv` with the pinned packages.

In: requirements.txt, constraints.txt, `TORCH_INDEX` (an index of torch without CUDA). Out: `.venv`, and, written
last, `.venv/installed`: the digest of what was installed, by which the next run sees that nothing is left to do.
Alone, with the Python for `.venv`: `python3 -m stages.common.install`. Imports nothing that has to be installed.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from stages.common.cli import run_stage
from stages.common.downloads import run_pip
from stages.common.errors import PipelineError
from stages.common.files import replace_file

VENV = Path(".venv")
PYTHON = VENV / "bin/python"
REQUIREMENTS = Path("requirements.txt")
CONSTRAINTS = Path("constraints.txt")

_STAMP = VENV / "installed"
_PIN = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)
_VENV_BYTES = 50_000_000  # that an empty environment takes, pip in it
_INTO_THE_VENV = ("--no-user", "--target=")  # also where pip.conf has `user = true` or a target


def require_place() -> None:
    """Raises `PipelineError` where the folder's name makes everything later fail."""
    here = Path.cwd()
    if {"{", "}"} & set(str(here)):
        raise PipelineError(f"{here}: dvc fails in a folder with a brace in its path; rename or move the folder")
    if os.pathsep in str(here):
        raise PipelineError(
            f"{here}: no program can be run from a folder with a `{os.pathsep}` in its path, since PATH separates "
            "folders by it; rename or move the folder"
        )


def require_git() -> None:
    """Raises `PipelineError` unless dvc.yaml is committed here: dvc needs git, and the gate a commit."""
    try:
        done = subprocess.run(
            ["git", "cat-file", "-e", "HEAD:./dvc.yaml"],
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise PipelineError(
            "git is not installed; install it (Debian, Ubuntu: apt install git) and run again"
        ) from None
    if done.returncode == 0:
        return
    if "dubious ownership" in done.stderr:
        raise PipelineError(
            f"this folder belongs to another user, and git refuses it; run: "
            f"git config --global --add safe.directory '{Path.cwd()}'"
        )
    raise PipelineError(
        "dvc needs a git repository with a commit, and this folder has none (a downloaded ZIP never has); clone "
        "the repository, or run: git init -q && git add -A && git commit -qm start"
    )


def wanted() -> str:
    """The digest of all that decides what is installed."""
    return hashlib.sha256(REQUIREMENTS.read_bytes() + CONSTRAINTS.read_bytes()).hexdigest()


def pins() -> dict[str, str]:
    """The version of each package that requirements.txt names."""
    return {_normal(name): pin for name, pin in _PIN.findall(REQUIREMENTS.read_text(encoding="utf-8"))}


def _normal(name: str) -> str:
    """A package's name as packages are compared by: tree_sitter is tree-sitter (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_installed() -> bool:
    """Whether an installation of just that was finished, with a Python that is still there."""
    return PYTHON.exists() and _STAMP.is_file() and _STAMP.read_text(encoding="utf-8") == wanted()


def make_venv() -> None:
    """Make `.venv`, or renew it.

    Raises:
        PipelineError: this Python has no venv module, or the module says something else.
    """
    anew = () if PYTHON.exists() else ("--clear",)
    done = subprocess.run(
        [sys.executable, "-m", "venv", *anew, VENV], capture_output=True, text=True, errors="replace"
    )
    if done.returncode == 0:
        return
    free = shutil.disk_usage(Path.cwd()).free
    raise PipelineError(f"{sys.executable} {why_venv_failed(done.stdout + done.stderr, free)}")


def why_venv_failed(output: str, free: int) -> str:
    """What the output of `python -m venv` means; on a full disk, with `free` bytes, it speaks of anything else."""
    if free < _VENV_BYTES:
        return f"cannot make {VENV}: {free / 1e6:.0f} MB are left on this disk; free 2 GB and run again"
    if "ensurepip is not" in output or "No module named venv" in output or "No module named ensurepip" in output:
        return "has no venv module; on Debian and Ubuntu: apt install python3-venv"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return f"cannot make {VENV}: {(lines or ['it printed nothing'])[-1]}"


def install() -> None:
    """Install the pinned packages into `.venv`; torch by itself first, from the index that has it without CUDA."""
    torch = f"torch=={pins()['torch']}"
    index = os.environ.get("TORCH_INDEX")
    # where that index cannot be reached, pip goes on with its own
    extra = ("--extra-index-url", index, "--retries", "1") if index else ()
    into = ("install", *_INTO_THE_VENV)
    run_pip(*into, *extra, "--constraint", CONSTRAINTS, torch, python=PYTHON, what=f"installing {torch}")
    run_pip(*into, "--requirement", REQUIREMENTS, python=PYTHON, what=f"installing {REQUIREMENTS}")
    there = installed()
    absent = [f"{name}=={pin}" for name, pin in pins().items() if there.get(name) != pin]
    if absent:
        raise PipelineError(
            f"pip has not put {absent[0]} into {VENV}; look for what tells it otherwise: `pip config list`, "
            "`env | grep PIP_`"
        )


def installed() -> dict[str, str]:
    """The version of each package that `.venv` holds, without its local part (2.13.0+cpu)."""
    code = "import importlib.metadata as m\nfor d in m.distributions(): print(d.name, d.version.partition('+')[0])"
    argv = [PYTHON, "-I", "-c", code]
    lines = subprocess.run(argv, capture_output=True, encoding="utf-8", check=True).stdout.splitlines()
    return {_normal(name): version for name, version in map(str.split, lines)}


def main() -> None:
    """Check the machine; then make `.venv` unless it is there."""
    require_place()
    require_git()
    if is_installed():
        return
    print(f"installing pinned packages into {VENV} (a few minutes once)", flush=True)
    _STAMP.unlink(missing_ok=True)
    make_venv()
    install()
    with replace_file(_STAMP) as file:
        file.write(wanted())


if __name__ == "__main__":
    run_stage("venv", main)
