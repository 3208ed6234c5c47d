"""The edge of every stage: errors become one line, a stage runs once at a time and dies with what started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

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
            "import os, concurrent.futures as f\n"
            "    with f.ProcessPoolExecutor(1) as pool: pool.submit(os._exit, 9).result()",
            "sample: error: a process of this stage was killed",
        ),
        ("open('/nowhere/at/all')", "sample: error: No such file or directory on /nowhere/at/all"),
        (
            "raise OSError(errno.EROFS, 'Read-only file system', '.cache')",
            "sample: error: Read-only file system on .cache in /tmp",
        ),
        ("raise OSError(errno.EPIPE, 'Broken pipe')", "the program that reads its output has ended"),
        ("bytearray(1 << 60)", "sample: error: there is not enough memory"),
        (
            'raise RuntimeError("DefaultCPUAllocator: can\'t allocate memory: you tried to allocate 8 bytes")',
            "sample: error: there is not enough memory",
        ),
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


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A work tree with the plumbing alone, for a stage `sample` of a test's own."""
    package = tmp_path / "stages"
    package.mkdir()
    for name in ("__init__.py", "common"):
        (package / name).symlink_to(Path(ROOT) / "stages" / name)
    return package


def test_closed_standard_streams_lead_nowhere(tmp_path: Path, package: Path) -> None:
    """A file opened by the stage would else have the number 1 and get what a child prints."""
    (package / "sample.py").write_text(
        "import subprocess\n"
        "from stages.common.cli import run_stage\n"
        "def main():\n"
        "    print('said')\n"
        "    with open('out', 'w') as file:\n"
        "        subprocess.run(['sh', '-c', 'echo stray; echo stray >&2'])\n"
        "        file.write('kept')\n"
        "run_stage('sample', main)\n"
    )
    argv = ["sh", "-c", f"exec '{sys.executable}' -m stages.sample <&- >&- 2>&-"]
    assert subprocess.run(argv, cwd=tmp_path).returncode == 0
    assert (tmp_path / "out").read_text() == "kept"


@pytest.mark.parametrize(("how", "survives"), [("", False), ("nohup", True), ("setsid", True)])
def test_a_stage_outlives_its_shell_where_it_was_started_to(
    tmp_path: Path, package: Path, how: str, survives: bool
) -> None:
    (package / "sample.py").write_text(
        "import os, pathlib, time\n"
        "shell = os.getppid()\n"
        "pathlib.Path('new').write_text(str(os.getpid()))\n"
        "os.rename('new', 'begun')\n"
        "while os.getppid() == shell: time.sleep(0.02)\n"
        "pathlib.Path('done').touch()\n"
    )
    shell = f"{how} '{sys.executable}' -m stages.sample > said 2>&1 & while [ ! -e begun ]; do sleep 0.05; done"
    hang_up = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # the tests may run below a nohup themselves
    subprocess.run(["sh", "-c", shell], cwd=tmp_path, check=True, preexec_fn=hang_up)
    begun = int((tmp_path / "begun").read_text())
    assert eventually(lambda: not _lives(begun))
    assert (tmp_path / "done").exists() == survives


KILLED_DVC = """
import ctypes, os, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: who adopts the stage is of its session, as in a container
dvc = subprocess.Popen(["dvc", "repro"])
while not os.path.exists(sys.argv[1]) and dvc.poll() is None:
    time.sleep(0.02)
dvc.kill()
time.sleep(60)
"""


@pytest.mark.parametrize("shell", ["exec ", ""], ids=["the-shell-gives-its-place", "a-shell-stays-between"])
@pytest.mark.parametrize("at_work", [True, False], ids=["at-work", "before-it-begins"])
def test_a_stage_dies_with_its_dvc(tmp_path: Path, package: Path, at_work: bool, shell: str) -> None:
    (package / "sleeper.py").write_text(
        "import os, pathlib, time\n"
        "pathlib.Path('stage.new').write_text(str(os.getpid()))\n"
        "os.rename('stage.new', 'stage')\n"
        "time.sleep(60)\n"
    )
    command = f"touch shell; sleep 1; {shell}python -m stages.sleeper 2> said"
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"sleeper": {"cmd": command, "outs": ["out"]}}}))
    subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    adopter = subprocess.Popen(
        [sys.executable, "-c", KILLED_DVC, "stage" if at_work else "shell"],
        cwd=tmp_path,
        env={**os.environ, "SHELL": "/bin/sh"},
    )
    try:
        if at_work:
            assert eventually((tmp_path / "stage").is_file)
            child = int((tmp_path / "stage").read_text())
            assert eventually(lambda: not _lives(child))
        else:
            said = tmp_path / "said"
            assert eventually(lambda: said.is_file() and said.read_text().endswith("\n"))
            assert said.read_text() == "sleeper: error: dvc was killed before its stage began; run it again\n"
            assert not (tmp_path / "stage").exists()
    finally:
        adopter.kill()
        adopter.wait()


def eventually(holds: Callable[[], bool], within_s: float = 20) -> bool:
    """Whether it comes to hold in time."""
    deadline = time.monotonic() + within_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and _state(pid) != "Z"


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
