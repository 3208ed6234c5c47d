"""What tests share: the repository's root, and a small work tree of its own for each test that runs stages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def root() -> Path:
    """The repository under test."""
    return ROOT


@pytest.fixture
def worktree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the settings and the code, in which a test may write; the test runs inside it."""
    for name in ("params.yaml", "dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("configs", "stages", "kaggle"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "data").mkdir()
    for path in ROOT.glob("data/*.*"):
        if path.suffix != ".jsonl":
            shutil.copy(path, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base model of size `tiny`, made once by its own stage; not to be written to."""
    folder = tmp_path_factory.mktemp("tiny")
    for name in ("configs", "data"):
        (folder / name).symlink_to(ROOT / name)
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (folder / "params.yaml").write_text(params.replace("model_size: 135m", "model_size: tiny"), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "stages.base"], cwd=folder, env=environment, check=True)
    return folder / "models/tiny/base"


@pytest.fixture
def trained(worktree: Path, root: Path, tiny_base: Path) -> Path:
    """A work tree of size `tiny` after the stage `train`, which shares the built tools of the repository."""
    (worktree / ".cache").mkdir()
    for name in ("llama.cpp", "downloads"):
        (root / ".cache" / name).mkdir(parents=True, exist_ok=True)
        (worktree / ".cache" / name).symlink_to(root / ".cache" / name)
    from tiny_adapter import TINY, make_adapter  # torch and peft: seconds that most tests need not wait

    params = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(params.replace("model_size: 135m", "model_size: tiny"), encoding="utf-8")
    shutil.copytree(tiny_base, TINY.base)
    make_adapter(TINY.base, TINY.adapter)
    return worktree
