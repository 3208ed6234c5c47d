"""What a killed dvc leaves behind: a lock that nobody holds, and half of dvc.lock."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.mend import holders, is_running_dvc

WHOLE = """schema: '2.0'
stages:
  generate:
    cmd: python -m stages.generate
    deps:
    - path: data/usage.yaml
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
      size: 12
"""
DAMAGED = Path(".dvc/tmp/dvc.lock.damaged")


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work tree in which a whole dvc.lock is committed, and nothing else."""
    monkeypatch.chdir(tmp_path)
    lock = tmp_path / "dvc.lock"
    lock.write_text(WHOLE)
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@example.com"]
    for command in (["init", "-q"], ["add", "dvc.lock"], ["commit", "-qm", "start"]):
        subprocess.run(["git", *identity, *command], check=True)
    return lock


def mend(root: Path) -> str:
    """Run it as `make repro` does; what it says."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-m", "stages.common.mend"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_lock_of_a_process_that_is_not_dvc_is_stale() -> None:
    lock = f'{{"write": {{"a": {{"pid": {os.getpid()}, "cmd": "dvc repro"}}}}, "read": {{}}}}'
    assert holders(lock) == {os.getpid()}
    assert not is_running_dvc(os.getpid())
    assert holders('{"write": {"a": {"pid"') == set()


@pytest.mark.parametrize(
    ("argv", "is_dvc"),
    [(["dvc", "repro"], True), (["-m", "dvc", "repro"], True), (["wait.py", "dvc.yaml"], False)],
)
def test_a_process_is_dvc_if_that_is_what_runs_and_not_if_it_is_only_named(
    tmp_path: Path, argv: list[str], is_dvc: bool
) -> None:
    for name in ("dvc", "dvc.py", "wait.py"):
        (tmp_path / name).write_text("print('up', flush=True); import time; time.sleep(60)")
    with subprocess.Popen([sys.executable, *argv], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert is_running_dvc(process.pid) is is_dvc
        process.kill()


def test_a_second_run_beside_a_living_dvc_is_refused_in_one_line(committed: Path, root: Path) -> None:
    Path("dvc").write_text("print('up', flush=True); import time; time.sleep(60)")
    with subprocess.Popen([sys.executable, "dvc", "repro"], stdout=subprocess.PIPE) as first:
        first.stdout.readline()
        lock = Path(".dvc/tmp/rwlock")
        lock.parent.mkdir(parents=True)
        lock.write_text(f'{{"write": {{"a": {{"pid": {first.pid}, "cmd": "dvc repro"}}}}, "read": {{}}}}')
        second = subprocess.run(
            [sys.executable, "-m", "stages.common.mend"],
            env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True,
        )  # fmt: skip
        first.kill()

    assert second.returncode == 1
    [line] = second.stderr.splitlines()
    assert line.startswith(
        f"mend: error: another dvc is at work in {Path.cwd()}: process {first.pid}; wait for it"
    )
    assert lock.is_file()
    first.wait()
    assert mend(root) == ""
    assert not lock.exists()


# a kill between dvc's truncating the file and its last write leaves any beginning of it
@pytest.mark.parametrize("left", [0, 8, len("schema: '2.0'\nsta"), len(WHOLE) - len("ize: 12\n")])
def test_half_a_dvc_lock_is_replaced_by_the_committed_one_and_kept_aside(
    committed: Path, root: Path, left: int
) -> None:
    committed.write_text(half := WHOLE[:left])
    assert "dvc.lock was not whole" in mend(root)
    assert committed.read_text() == WHOLE
    assert DAMAGED.read_text() == half


def test_a_whole_dvc_lock_stays_though_it_is_not_the_committed_one(committed: Path, root: Path) -> None:
    later = WHOLE.replace("size: 12", "size: 13")
    committed.write_text(later)
    assert mend(root) == ""
    assert committed.read_text() == later
    assert not DAMAGED.exists()


def test_half_a_dvc_lock_that_was_never_committed_goes(committed: Path, root: Path) -> None:
    subprocess.run(["git", "rm", "-q", "--cached", "dvc.lock"], check=True)
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "without"], check=True
    )
    committed.write_text("schema: ")
    mend(root)
    assert not committed.exists()
    assert DAMAGED.read_text() == "schema: "
