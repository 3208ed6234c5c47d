"""`make venv` on machines of all kinds: one line before anything is installed, or an installation in `.venv`."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stages.common import install

TORCH = "2.13.0"
GIT = ("git", "-c", "user.name=tests", "-c", "user.email=tests@example.com")


def wheel(folder: Path, name: str, version: str) -> None:
    """A package with one empty module."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def plant(root: Path, folder: Path) -> Path:
    """The Makefile and what it installs by, with two small packages in a folder that stands for the index."""
    folder.mkdir(exist_ok=True)
    for name in ("Makefile", "dvc.yaml"):
        shutil.copy(root / name, folder)
    shutil.copytree(root / "stages", folder / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "constraints.txt").write_text("toy_package==1.0\n")
    (folder / "requirements.txt").write_text(f"-c constraints.txt\ntorch=={TORCH}\nToy.Package==1.0\n")
    (folder / "index").mkdir()
    wheel(folder / "index", "torch", TORCH)
    wheel(folder / "index", "toy_package", "1.0")
    return folder


@pytest.fixture
def clone(tmp_path: Path, root: Path) -> Path:
    """The same as a git repository with a commit."""
    return commit(plant(root, tmp_path / "clone"))


def commit(folder: Path) -> Path:
    for command in (("init", "-q"), ("add", "Makefile", "dvc.yaml"), ("commit", "-qm", "start")):
        subprocess.run([*GIT, *command], cwd=folder, check=True)
    return folder


def test_the_settings_of_another_repository_are_not_ours(clone: Path, tmp_path: Path) -> None:
    """As below a hook of git, which sets them."""
    done = make(clone, GIT_DIR=str(tmp_path / "other/.git"), GIT_WORK_TREE="/tmp", GIT_INDEX_FILE="/nowhere")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_interpreter_may_be_in_a_folder_of_any_name(clone: Path, tmp_path: Path) -> None:
    interpreter = tmp_path / "a b (ü)/python"
    interpreter.parent.mkdir()
    interpreter.write_text(f'#!/bin/sh\necho "$*" >> "{clone}/ran"\n')
    interpreter.chmod(0o755)
    done = make(clone, f"PYTHON={interpreter}")
    assert done.returncode == 0, done.stderr
    assert (clone / "ran").read_text().endswith("-m stages.common.install\n")


def test_a_brace_in_the_path_is_refused_before_anything_is_installed(tmp_path: Path, root: Path) -> None:
    done = make(commit(plant(root, tmp_path / "a{b")))
    assert done.returncode == 2
    assert "dvc fails in a folder with a brace in its path; rename or move the folder" in done.stderr


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`make venv`, with the folder `index` for an index."""
    # the suite is itself run by make, and a make within another one prints more
    outer = {name: value for name, value in os.environ.items() if name not in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")}
    given = {**outer, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "index"), **environment}
    argv = ["make", "--no-print-directory", "venv", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(argv, cwd=folder, env=given, capture_output=True, text=True)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed `make venv` prints, beside make's own."""
    assert done.returncode == 2
    [line] = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("make: ***")]
    return line


@pytest.mark.slow
def test_settings_of_the_user_neither_break_nor_misdirect_the_installation(clone: Path) -> None:
    elsewhere = clone / "elsewhere"
    settings = clone / "pip.conf"
    settings.write_text(f"[global]\nuser = true\n[install]\ntarget = {elsewhere}\n")
    foreign = clone / "foreign"
    foreign.mkdir()
    for name in ("pip", "venv", "json"):
        (foreign / f"{name}.py").write_text("raise ImportError('from another Python')")
    pip = {"PIP_CONFIG_FILE": str(settings), "PIP_USER": "1", "PIP_TARGET": str(elsewhere), "PIP_NO_DEPS": "1"}
    strict = {"PIP_REQUIRE_VIRTUALENV": "1", "PIP_REQUIRE_HASHES": "1", "PIP_QUIET": "3"}
    python = {"PYTHONPATH": str(foreign), "PYTHONHOME": str(foreign), "PYTHONSAFEPATH": "1"}

    done = make(clone, **pip, **strict, **python)

    assert done.returncode == 0, done.stdout + done.stderr
    assert list(clone.glob(".venv/lib/*/site-packages/toy_package.py"))
    assert list(clone.glob(".venv/lib/*/site-packages/torch.py"))
    assert not elsewhere.exists()
    shutil.rmtree(clone / "index")
    again = make(clone)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ä b", "a[b#c$d;e'f"])
def test_a_folder_of_any_name_gets_its_packages(tmp_path: Path, root: Path, name: str) -> None:
    named = commit(plant(root, tmp_path / name))
    done = make(named, PIP_FIND_LINKS="index")
    assert done.returncode == 0, done.stdout + done.stderr
    used = subprocess.run(
        ["make", "--no-print-directory", "--eval", "it: venv; python -c 'import sys; print(sys.prefix)'", "it"],
        cwd=named, capture_output=True, text=True,
    )  # fmt: skip
    assert used.stdout.splitlines()[-1] == str(named / ".venv"), used.stderr


def test_a_colon_in_the_path_is_refused_before_anything_is_installed(tmp_path: Path, root: Path) -> None:
    folder = commit(plant(root, tmp_path / "a:b"))
    assert refusal(make(folder)) == (
        f"venv: error: {folder}: no program can be run from a folder with a `:` in its path, since PATH separates "
        "folders by it; rename or move the folder"
    )
    assert not (folder / ".venv").exists()


def test_a_zip_without_git_is_refused_with_what_to_do_which_helps(tmp_path: Path, root: Path) -> None:
    folder = plant(root, tmp_path / "unzipped")
    line = refusal(make(folder, GIT_CEILING_DIRECTORIES=str(tmp_path)))
    assert "clone the repository, or run: " in line
    assert not (folder / ".venv").exists()
    remedy = line.partition(" or run: ")[2].replace("git commit", "git -c user.name=t -c user.email=t@t commit")
    subprocess.run(["sh", "-c", remedy], cwd=folder, check=True)
    (folder / "requirements.txt").write_text("torch==0\n")  # the next thing that it meets
    assert "torch==0" in refusal_after_the_first_line(make(folder))


def refusal_after_the_first_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.stdout.startswith("installing pinned packages into .venv")
    return done.stderr


def test_a_machine_without_git_is_told_so(clone: Path) -> None:
    programs = clone / "programs"
    programs.mkdir()
    for name in ("sh", "make"):
        (programs / name).symlink_to(shutil.which(name))
    assert refusal(make(clone, PATH=str(programs))).startswith("venv: error: git is not installed; install it")


def test_a_python_without_venv_is_told_from_one_whose_venv_fails() -> None:
    debian = (
        "The virtual environment was not created successfully because ensurepip is not\navailable. On "
        "Debian/Ubuntu systems, you need to install the python3-venv\npackage using the following command.\n"
    )
    assert install.why_venv_failed(debian, free=10**9).endswith("apt install python3-venv")
    closed = "Error: [Errno 13] Permission denied: '/x/.venv'\n"
    assert install.why_venv_failed(closed, free=10**9) == f"cannot make .venv: {closed.strip()}"


def test_a_venv_that_finds_the_disk_full_says_so_whatever_python_says() -> None:
    output = "Error: Command '['/x/.venv/bin/python3', '-m', 'ensurepip']' returned non-zero exit status 1.\n"
    said = install.why_venv_failed(output, free=3_000_000)
    assert said == "cannot make .venv: 3 MB are left on this disk; free 2 GB and run again"


def test_it_runs_before_anything_is_installed(root: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import stages.common.install"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
