"""What a machine leaves beside the code changes no stage: bytecode, editors' copies, the page of plots."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

GIT = ("git", "-c", "user.name=tests", "-c", "user.email=tests@example.com")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git would commit, committed, with every stage up to date: none has done anything yet."""
    root = Path(__file__).parents[1]
    folder = tmp_path_factory.mktemp("clone")
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in subprocess.check_output(listed, cwd=root, text=True).split("\0"):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    idle = {
        name: {"cmd": "true", "deps": [dep for dep in entry["deps"] if (folder / dep).exists()]}
        for name, entry in stages.items()
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": idle}), encoding="utf-8")
    (folder / "dvc.lock").unlink()
    subprocess.run([*GIT, "init", "-q"], cwd=folder, check=True)
    run(folder, "dvc", "repro")
    for command in (("add", "-A"), ("commit", "-qm", "start")):
        subprocess.run([*GIT, *command], cwd=folder, check=True)
    return folder


def run(folder: Path, *argv: str) -> str:
    """Run a command as on a machine where Python writes bytecode."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    own = {"DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site"), "PYTHONPATH": "kaggle"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.check_output(argv, cwd=folder, env={**environment, **own, "PATH": path}, text=True)


def changed(folder: Path) -> dict[str, list[str]]:
    """The inputs by stage that dvc calls modified."""
    status = json.loads(run(folder, "dvc", "status", "--json"))
    return {
        stage: sorted(path for change in changes for path in change.get("changed deps", {}))
        for stage, changes in status.items()
        if not isinstance(changes, str)
    }


@pytest.fixture(autouse=True)
def tidy(clone: Path) -> Iterator[None]:
    """Nothing is modified before the test, and git tidies up after it."""
    assert changed(clone) == {}
    yield
    run(clone, "git", "clean", "-qffdx", "--exclude=.dvc/tmp", "--exclude=.dvc/cache")


def test_bytecode_modifies_no_stage(clone: Path) -> None:
    stages = "stages.generate, stages.validate, stages.convert, stages.fidelity, train_lora"
    run(clone, "python", "-c", f"import {stages}")
    written = {str(folder.relative_to(clone)) for folder in clone.rglob("__pycache__")}
    assert written > {f"stages/{name}/__pycache__" for name in ("generating", "validating", "converting")}
    assert changed(clone) == {}


def test_an_editors_copies_modify_no_stage(clone: Path) -> None:
    for name in ("rows.py~", ".rows.py.swp", "#rows.py#", ".#rows.py", ".DS_Store"):
        (clone / "stages/generating" / name).write_text("a copy")
    assert changed(clone) == {}


def test_a_new_module_modifies_its_stages(clone: Path) -> None:
    (clone / "stages/generating/new.py").write_text("")
    assert changed(clone) == {"generate": ["stages/generating"]}


def test_the_page_of_plots_is_not_for_git(clone: Path) -> None:
    page = clone / "dvc_plots/index.html"
    page.parent.mkdir()
    page.write_text("plots")
    assert run(clone, "git", "status", "--porcelain", "dvc_plots") == ""
