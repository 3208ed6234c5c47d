"""A damaged adapter or base is not converted: the line names the file, and its command makes it again."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stages.common.errors import PipelineError
from stages.converting.adapters import DIGESTS, cached_object, require_whole

WRITES = """
import json, sys
from pathlib import Path
from checkpoint import file_digests
base, adapter = Path("models/base"), Path("models/adapter")
for folder in (base, adapter):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights").write_bytes(bytes(1000) + folder.name.encode())
digests = {kind: file_digests(sorted(folder.iterdir())) for kind, folder in (("base", base), ("adapter", adapter))}
(adapter / "digests.json").write_text(json.dumps(digests))
with Path("trained").open("a") as log:
    log.write("once more\\n")
"""


def run(*argv: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kaggle = str(Path(__file__).parents[1] / "kaggle")
    environment = {**os.environ, "PATH": path, "PYTHONPATH": kaggle, "DVC_SITE_CACHE_DIR": ".dvc/tmp/site"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base and an adapter, as dvc keeps them: linked to its cache."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "writes.py").write_text(WRITES)
    stage = {"cmd": "python writes.py", "deps": ["writes.py"], "outs": ["models/base", "models/adapter"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}}))
    run("dvc", "init", "-q", "--no-scm")
    run("dvc", "config", "cache.type", "hardlink,copy")
    run("dvc", "repro", "-q")
    return Path("models")


def rot(path: Path) -> None:
    """Change one byte as a failing disk does: neither size nor time tells."""
    before = path.stat()
    path.chmod(before.st_mode | stat.S_IWUSR)
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    path.chmod(before.st_mode)


def test_whole_files_pass(models: Path) -> None:
    require_whole(models / "adapter", models / "base")


@pytest.mark.parametrize(
    ("damaged", "line"),
    [
        ("adapter/weights", "models/adapter/weights: not the file that training wrote; "),
        ("base/weights", "models/base/weights: not the file that the adapter was trained from; "),
    ],
)
def test_a_damaged_file_is_named_and_the_line_says_what_makes_it_again(
    models: Path, damaged: str, line: str
) -> None:
    rot(models / damaged)

    with pytest.raises(PipelineError) as raised:
        require_whole(models / "adapter", models / "base")

    assert str(raised.value).startswith(line)
    command = re.search(r"rm -rf .*$", str(raised.value))[0]
    run("bash", "-c", command)
    require_whole(models / "adapter", models / "base")
    assert len(Path("trained").read_text().splitlines()) == 2


def test_what_dvc_has_of_a_file_is_found_by_its_lock(models: Path) -> None:
    found = cached_object(models / "adapter/weights")
    assert found.read_bytes() == (models / "adapter/weights").read_bytes()
    assert cached_object(Path("writes.py")) is None


@pytest.mark.parametrize("digests", ["{}", "[]", '{"adapter": {"weights": "0"}}', '{"adapter": {}, "base": {}}'])
def test_an_adapter_that_vouches_for_nothing_is_refused(models: Path, digests: str) -> None:
    (models / "adapter" / DIGESTS).unlink()
    (models / "adapter" / DIGESTS).write_text(digests)
    with pytest.raises(PipelineError, match=r"adapter/digests\.json: no digests of the adapter and of its base; "):
        require_whole(models / "adapter", models / "base")


def test_a_missing_file_is_named(models: Path) -> None:
    (models / "adapter/weights").unlink()
    with pytest.raises(PipelineError, match="models/adapter/weights: not there"):
        require_whole(models / "adapter", models / "base")
