"""What tests share: a machine without a past, the repository's root, a work tree for every test of stages."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from own_params import write_params

ROOT = Path(__file__).parents[1]

_STRAY = ("DVC_", "GIT_", "HF_", "KAGGLE_", "TRAIN_", "TRANSFORMERS_", "XDG_", "STAND_IN_")
"""Beginnings of variables that change what the programs under test do."""

_KEPT = ("XDG_CONFIG_DIRS",)
"""Where pip's settings for the whole machine are."""


def _pip_settings() -> Path | None:
    """The user's own pip.conf, by which this machine may reach its package index."""
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    places = (Path(config, "pip/pip.conf").expanduser(), Path("~/.pip/pip.conf").expanduser())
    return next(filter(Path.is_file, places), None)


def _forget_the_user() -> tempfile.TemporaryDirectory[str]:
    """Give this process, and all that it starts, an empty home and none of the user's settings but pip's.

    It has to happen before any test module is imported: `import kaggle` makes ~/.config/kaggle, in which two
    processes at once get in each other's way, and signs in with what it finds there.
    """
    if (settings := _pip_settings()) is not None:
        os.environ.setdefault("PIP_CONFIG_FILE", str(settings))
    for name in [name for name in os.environ if name.startswith(_STRAY) and name not in _KEPT]:
        del os.environ[name]
    home = tempfile.TemporaryDirectory(prefix="oops-home-")
    # the user may test a clone that belongs to somebody else, as a container's CI does
    Path(home.name, ".gitconfig").write_text(f"[safe]\n\tdirectory = {ROOT}\n", encoding="utf-8")
    os.environ.update(HOME=home.name, DVC_SITE_CACHE_DIR=f"{home.name}/dvc", DVC_NO_ANALYTICS="1")
    # as many tests run at once as there are cores; threads that wait for each other make each of them slow
    os.environ.update(OMP_NUM_THREADS="1")
    return home


_HOME = _forget_the_user()


def pytest_unconfigure() -> None:
    """Remove the home."""
    _HOME.cleanup()


@pytest.fixture
def root() -> Path:
    """The repository under test."""
    return ROOT


@pytest.fixture
def worktree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the settings and the code, in which a test may write; the test runs inside it."""
    write_params(tmp_path)
    for name in ("dvc.yaml", ".dvcignore"):
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
    write_params(folder, model_size="tiny")
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

    write_params(worktree, model_size="tiny")
    shutil.copytree(tiny_base, TINY.base)
    make_adapter(TINY.base, TINY.adapter)
    return worktree
