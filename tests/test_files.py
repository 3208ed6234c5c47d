"""Files are whole or absent, and bad ones are named by line."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.errors import PipelineError
from stages.common.files import read_json, read_jsonl, replace_directory, replace_file, write_json


def test_a_file_keeps_its_old_content_when_writing_the_new_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replace_file(path) as file:
        file.write("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_keeps_its_old_content_when_writing_the_new_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with replace_directory(path) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(RuntimeError), replace_directory(path) as folder:
        (folder / "a").write_text("new")
        raise RuntimeError
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_cleared_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "out"
    killed = (
        "import os, signal, sys; from pathlib import Path; from stages.common.files import replace_directory\n"
        "with replace_directory(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'a').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", killed, str(path)]).returncode == -9
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1
    with replace_directory(path) as folder:
        (folder / "a").write_text("whole")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n', ":2: not JSON"),
        (b'{"a": 1}\n\xff\xfe\n', ":2: not UTF-8"),
        (b"[1, 2]\n", ":1: not a JSON object"),
        (b'{"a": 1}\n\n', ":2: not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(PipelineError) as caught:
        list(read_jsonl(path))
    assert str(caught.value).startswith(f"{path}{message}")


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "metrics.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_missing_file_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="dvc repro"):
        read_json(tmp_path / "eval.json")
