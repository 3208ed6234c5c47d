"""The edge of every stage: errors become one line, a stage runs once at a time and dies with what started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.common.stale_locks import holders, is_running_dvc

PRELUDE = (
    "import sys, time, errno\n"
    "from stages.common.cli import run_stage\n"
    "from stages.common.errors import PipelineError\n"
)
ROOT = str(Path(__file__).parents[1])


def stage(body: str, folder: Path, **extra) -> subprocess.CompletedProcess[str]:
    """Run a stage whose main is `body` in `folder`."""
    return subprocess.run(
        [sys.executable, "-c", f"{PRELUDE}def main():\n    {body}\nrun_stage('sample', main)"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        **extra,
    )


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("raise PipelineError('a.json:3: not JSON; mend it')", "sample: error: a.json:3: not JSON; mend it"),
        ("raise OSError(errno.ENOSPC, 'No space left on device', 'models/x')", "the disk is full on models/x"),
        ("open('/nowhere/at/all')", "sample: error: No such file or directory on /nowhere/at/all"),
    ],
)
def test_a_foreseen_error_is_one_line(tmp_path: Path, body: str, line: str) -> None:
    done = stage(body, tmp_path)
    assert done.returncode == 1
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_full_disk_is_one_line() -> None:
    """/dev/full answers every write as a full disk does."""
    done = stage("f = open('/dev/full', 'w'); f.write('x' * 100000); f.flush()", Path("/tmp"))
    assert done.returncode == 1
    assert "the disk is full" in done.stderr


def test_a_defect_of_ours_keeps_its_traceback(tmp_path: Path) -> None:
    done = stage("[].pop()", tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_stage_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    starter = (
        "import subprocess, sys, time\n"
        f"sleeper = {PRELUDE!r} + 'run_stage(\"s\", lambda: time.sleep(60))'\n"
        "child = subprocess.Popen([sys.executable, '-c', sleeper])\n"
        "time.sleep(1.5); print(child.pid, flush=True); time.sleep(60)"
    )
    env = {**os.environ, "PYTHONPATH": ROOT}
    parent = subprocess.Popen(
        [sys.executable, "-c", starter], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and _state(child) != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists() or _state(child) == "Z"


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_the_lock_of_a_process_that_is_not_dvc_is_stale() -> None:
    lock = f'{{"write": {{"a": {{"pid": {os.getpid()}, "cmd": "dvc repro"}}}}, "read": {{}}}}'
    assert holders(lock) == {os.getpid()}
    assert not is_running_dvc(os.getpid())
    assert holders('{"write": {"a": {"pid"') == set()
