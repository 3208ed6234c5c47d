"""The edge of every stage: errors become one line, a stage runs once at a time and dies with what started it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
        (
            "import os, concurrent.futures as f; f.ProcessPoolExecutor(1).submit(os._exit, 9).result()",
            "sample: error: a process of this stage was killed",
        ),
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


@pytest.mark.parametrize("moment", [0, 0.15, 1.5], ids=["before-it-begins", "while-it-imports", "at-work"])
def test_a_stage_dies_with_the_process_that_started_it(tmp_path: Path, moment: float) -> None:
    package = tmp_path / "stages"
    package.mkdir()
    for name in ("__init__.py", "common"):
        (package / name).symlink_to(Path(ROOT) / "stages" / name)
    (package / "sleeper.py").write_text("import time\ntime.sleep(1)  # a slow import\ntime.sleep(60)\n")
    starter = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'stages.sleeper'])\n"
        f"time.sleep({moment}); print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", starter],
        cwd=tmp_path,
        env={**os.environ, "DVC_STAGE": "sleeper"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    child = int(parent.stdout.readline())
    assert _lives(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while _lives(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and _state(pid) != "Z"


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
