"""Files are whole or absent, and bad ones are named by line."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.errors import PipelineError
from stages.common.files import (
    read_json,
    read_jsonl,
    read_yaml,
    replace_directory,
    replace_file,
    scratch_directory,
    write_json,
)


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


@pytest.mark.parametrize("write", ["replace_file", "scratch_directory"])
def test_many_processes_may_write_the_same_at_once(tmp_path: Path, write: str) -> None:
    """None takes what another is about to write, or to rename, for something that a killed run left."""
    often = (
        f"import sys; from pathlib import Path; from stages.common.files import {write}\n"
        "for _ in range(60):\n"
        f"    with {write}(Path(sys.argv[1])) as made: pass"
    )
    argv = [sys.executable, "-c", often, str(tmp_path / "out")]
    writers = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [writer.communicate()[1] for writer in writers] == [""] * 4
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n', ":2: not JSON"),
        (b'{"a": 1}\n\xff\xfe\n', ":2: not UTF-8"),
        (b"[1, 2]\n", ":1: not a JSON object"),
        (b'{"a": 1}\n\n', ":2: not JSON"),
        (b'{"a": 1}\n{"b": {"a": 1, "a": 2}}\n', ":2: the key 'a' is there twice"),
        (b'{"a": ' + b"9" * 5000 + b"}\n", ":1: not JSON that can be read"),
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"posix:\n  git: [a]\n  ls: [b]\n  git: [c]\n", ":4: the key 'git' is there twice, first in line 2"),
        (b"- {a: 1}\n- [{b: {c: 1, d: 2, c: 3}}]\n", ":2: the key 'c' is there twice, first in line 2"),
        (b"a: 1\n'a': 2\n", ":2: the key 'a' is there twice"),
        (b"base: &x {k: 1}\nuse:\n  <<: *x\n  <<: *x\n", ":4: the key '<<' is there twice"),
        (b"a: [1\nb: 2\n", ":2: not YAML: did not find expected ',' or ']'"),
        (b"a: *nowhere\n", ":1: not YAML: found undefined alias"),
        (b"a: !!python/object:os.system {}\n", ":1: not YAML: could not determine a constructor"),
        (b"a: 1\nb: \xff\n", ":2: not UTF-8; save it as UTF-8"),
        (b"a: \x07\n", ": not YAML: unacceptable character #x0007: control characters are not allowed"),
        (b"a: 2026-13-01\n", ": not YAML that can be read: month must be in 1..12"),
    ],
)
def test_a_bad_yaml_file_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "table.yaml"
    path.write_bytes(content)
    with pytest.raises(PipelineError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)


def test_yaml_keeps_its_merge_keys_and_anchors(tmp_path: Path) -> None:
    """A key may override what a merge brings, also where the merged mapping has merged another."""
    path = tmp_path / "table.yaml"
    path.write_text(
        "a: &a {k: 1, l: 1}\nb: &b {<<: *a, k: 2}\nc: {<<: *b, k: 3}\nd: &d [*a, *b]\ne: *d\n", encoding="utf-8"
    )
    a, b = {"k": 1, "l": 1}, {"k": 2, "l": 1}
    assert read_yaml(path) == {"a": a, "b": b, "c": {"k": 3, "l": 1}, "d": [a, b], "e": [a, b]}


def test_an_empty_yaml_file_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_text("# nothing yet\n")
    assert read_yaml(tmp_path / "table.yaml") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{\n "a": {"x": 1},\n "b": 2,\n "a": 3\n}', ":4: the key 'a' is there twice; remove or merge one"),
        (
            b'[{"x": "}{", "y\\"": [1]},\n {"y\\"": 1, "z": {"y\\"": 2},\n  "y\\"": 3}]',
            ":3: the key 'y\"' is there twice",
        ),
        (b'{"a":\n 1,\n "b" 2}', ":3: not JSON: Expecting ':' delimiter"),
        (b'{"a":\n "\xff"}', ":2: not UTF-8; save it as UTF-8"),
        (b"[" * 100_000, ": not JSON that can be read: "),
        (b"9" * 5000, ": not JSON that can be read: "),
    ],
)
def test_a_bad_json_file_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    with pytest.raises(PipelineError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "sys." not in str(caught.value)  # Python's advice to programmers


def test_an_object_may_have_the_key_of_another(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": {"a": [{"a": 1}, {"a": 2}]}, "b": "a"}')
    assert read_json(tmp_path / "a.json") == {"a": {"a": [{"a": 1}, {"a": 2}]}, "b": "a"}


def test_a_scratch_directory_is_gone_after_its_block_and_after_a_killed_run(tmp_path: Path) -> None:
    killed = (
        "import os, signal, sys; from pathlib import Path; from stages.common.files import scratch_directory\n"
        "with scratch_directory(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'a').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", killed, str(tmp_path / "work")]).returncode == -9
    [left] = tmp_path.iterdir()
    with scratch_directory(tmp_path / "work") as folder:
        assert not left.exists()
        assert list(tmp_path.iterdir()) == [folder]
    assert not list(tmp_path.iterdir())


def test_what_a_running_writer_has_begun_is_left_alone(tmp_path: Path) -> None:
    """Two work trees may share .cache/downloads."""
    with scratch_directory(tmp_path / "work") as one, replace_file(tmp_path / "file") as half:
        half.write("one")
        with scratch_directory(tmp_path / "work"), replace_file(tmp_path / "file") as other:
            other.write("other")
        assert one.is_dir()
    assert (tmp_path / "file").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
