"""What CI runs starts from nothing: no home, no settings, no leftovers of the machine that it runs on."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = """
lint test:
\t@python3 -c 'import json, os; print(json.dumps({"target": "$@", "home": os.listdir(os.environ["HOME"]), \\
\t  "umask": os.umask(0), "environment": dict(os.environ)}))'
"""


@pytest.fixture
def checkout(tmp_path: Path, root: Path) -> Path:
    """A clone in whose place `make` tells what it was given."""
    folder = tmp_path / "a clone"
    shutil.copytree(root / ".ci", folder / ".ci")
    (folder / "Makefile").write_text(MAKEFILE)
    return folder


def run(checkout: Path, **environment: str) -> list[dict]:
    """What `make lint` and `make test` were given."""
    done = subprocess.run(
        ["bash", ".ci/run"], cwd=checkout, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, umask=0o077,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_nothing_of_the_machine_reaches_the_commands(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "home/.config/kaggle").mkdir(parents=True)
    stray = dict.fromkeys(("KAGGLE_KEY", "HF_HOME", "DVC_EXP_NAME", "GIT_DIR", "XDG_CACHE_HOME", "TZ"), "stray")
    python = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "stray", "LLAMA_CPP_DIR": "stray", "LC_ALL": "C"}
    given = run(checkout, HOME=str(tmp_path / "home"), **stray, **python)
    assert [each["target"] for each in given] == ["lint", "test"]
    for each in given:
        assert each["home"] == []
        assert each["umask"] == 0o022
        assert not {*stray, *python} & set(each["environment"])
        assert each["environment"]["LANG"] == "C.UTF-8"


def test_the_home_and_the_temporary_files_are_its_own_and_go_with_it(checkout: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    [lint, _] = run(checkout, TMPDIR=str(temporary))
    for name in ("HOME", "TMPDIR"):
        assert Path(lint["environment"][name]).is_relative_to(temporary)
    assert list(temporary.iterdir()) == []


def test_the_way_to_the_package_index_is_kept(checkout: Path, tmp_path: Path) -> None:
    settings = tmp_path / "home/.config/pip/pip.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text("[global]\nindex-url = https://packages.example.com/simple\n")
    way = {
        "PIP_INDEX_URL": "https://a b/simple",
        "https_proxy": "http://proxy:1",
        "SSL_CERT_FILE": "/certificates",
    }
    [lint, _] = run(checkout, HOME=str(tmp_path / "home"), **way)
    kept = {name: lint["environment"].get(name) for name in (*way, "PIP_CONFIG_FILE")}
    assert kept == {**way, "PIP_CONFIG_FILE": os.environ.get("PIP_CONFIG_FILE", str(settings))}


def test_a_failure_fails_it(checkout: Path) -> None:
    (checkout / "Makefile").write_text("lint:\n\t@false\ntest:\n\t@echo not reached\n")
    done = subprocess.run(["bash", ".ci/run"], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 2
    assert "not reached" not in done.stdout
