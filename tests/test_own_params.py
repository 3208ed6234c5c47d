"""Tests bring their own settings: an edited params.yaml fails none of them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from own_params import OWN, write_params

from stages.common import config


def test_what_a_user_may_change_is_the_tests_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(tmp_path, model_size="tiny", data={"rows": 7})
    monkeypatch.chdir(tmp_path)
    assert config.seed() == OWN["seed"]
    written = yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))
    assert written["model_size"] == "tiny"
    assert written["data"] == {**written["data"], **OWN["data"], "rows": 7}


def test_the_tests_of_settings_pass_with_other_settings(root: Path, tmp_path: Path) -> None:
    for name in ("configs", "data", "dvc.yaml", ".dvcignore", "kaggle", "pyproject.toml", "stages", "tests"):
        (tmp_path / name).symlink_to(root / name)
    # pytest resolves links to find conftest.py and its root
    (tmp_path / "tests").unlink()
    shutil.copytree(root / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    params |= {"model_size": "tiny", "task": "wit", "seed": 1, "backend": "kaggle"}
    params["data"]["rows"] = 1234
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_config.py"]
    done = subprocess.run(argv, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
