"""Ctrl-C, as a terminal sends it: SIGINT to the whole process group. One line, status 130, in two seconds."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from own_params import write_params
from programs import write_program

from stages.common import interrupts

ROOT = Path(__file__).parents[1]
STAND_IN = Path(__file__).with_name("stand_in_llama_server.py")
BAR = re.compile(r"\[\d\d:\d\d|\d+%\|")

Press = Callable[..., "Ended"]


@dataclass(frozen=True)
class Ended:
    """What a user sees of a command that he has stopped."""

    status: int
    seconds: float
    printed: str

    @property
    def lines(self) -> list[str]:
        """Standard error without progress bars."""
        return [line for line in re.split(r"[\r\n]+", self.printed) if line.strip() and not BAR.search(line)]


def others_in(folder: Path) -> list[psutil.Process]:
    """The processes that are at work in a folder."""
    found = []
    for process in psutil.process_iter(["cwd", "status"]):
        cwd = process.info["cwd"]
        if cwd and Path(cwd).is_relative_to(folder) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return [process for process in found if process.pid != os.getpid()]


def eventually(holds: Callable[[], object], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(holds())


def listen_to_ctrl_c() -> None:
    """In a child: the tests' runner may ignore Ctrl-C (`nohup`), and a child inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def press(tmp_path: Path) -> Iterator[Press]:
    """Start a command as the foreground group of a terminal, and press Ctrl-C when `ready`."""

    def press(
        *argv: str,
        ready: Callable[[], object],
        environment: Mapping[str, str] | None = None,
        patience_s: float = 60,
    ) -> Ended:
        log = tmp_path / "stderr.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                argv,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(tmp_path), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=listen_to_ctrl_c,
            )
        assert eventually(lambda: ready() or process.poll() is not None, patience_s), log.read_text()
        assert process.poll() is None, log.read_text()
        pressed = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        status = process.wait(timeout=30)
        return Ended(status, time.monotonic() - pressed, log.read_text(errors="replace"))

    yield press
    for process in others_in(tmp_path):
        process.kill()


def require_stopped(ended: Ended, stage: str, folder: Path) -> None:
    """Hold it to the contract."""
    assert ended.lines == [f"{stage}: stopped; run again to go on"]
    assert ended.status == 130
    # two where a core is free (2.2 were seen beside two other programs); what hung waited for time-outs of minutes
    assert interrupts.PATIENCE_S < 2
    assert ended.seconds < 10
    assert eventually(lambda: not others_in(folder), 1), others_in(folder)
    assert not list(folder.rglob("*.partial-*"))


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A work tree with the plumbing alone, for a stage `sample` of a test's own."""
    (tmp_path / "stages").mkdir()
    for name in ("__init__.py", "common"):
        (tmp_path / "stages" / name).symlink_to(ROOT / "stages" / name)
    return tmp_path


def sample(folder: Path, main: str, module: str = "") -> list[str]:
    """Write the stage `sample`; its command."""
    (folder / "stages/sample.py").write_text(
        "import sys, time\nfrom pathlib import Path\n"
        f"{module}\n"
        "from stages.common.cli import run_stage\n"
        "from stages.common.files import replace_directory, replace_file\n"
        "from stages.common.processes import run_tool\n"
        "def main():\n"
        + "".join(f"    {line}\n" for line in main.splitlines())
        + "if __name__ == '__main__':\n    run_stage('sample', main)\n"
    )
    return [sys.executable, "-m", "stages.sample"]


SLOWLY = (
    "import subprocess\nstart = subprocess.Popen.__init__\n"
    "def slowly(*args, **options):\n    start(*args, **options); time.sleep(0.3)\n"
    "subprocess.Popen.__init__ = slowly\n"
)
"""A busy machine: the program works already, and the stage that has started it does not know yet."""
SHELL_WITH_CHILD = "sleep 60 & echo started > begun; wait"
STUBBORN = "trap '' TERM INT; echo started > begun; while :; do sleep 60; done"


@pytest.mark.parametrize(
    "main",
    [
        "Path('begun').touch(); time.sleep(60)",
        f"run_tool(['sh', '-c', {SHELL_WITH_CHILD!r}], what='working')",
        f"run_tool(['sh', '-c', {STUBBORN!r}], what='working')",
        f"{SLOWLY}run_tool(['sh', '-c', {STUBBORN!r}], what='working')",
        "with replace_directory(Path('out')) as out:\n"
        "    (out / 'half').touch(); Path('begun').touch(); time.sleep(60)",
        "with replace_file(Path('out')) as out:\n    out.write('half'); Path('begun').touch(); time.sleep(60)",
        "import hashlib; Path('begun').touch(); hashlib.pbkdf2_hmac('sha256', b'', b'', 2 * 10**9)",
        "class Deaf:\n    def __del__(self): Path('begun').touch(); time.sleep(60)\nDeaf()\ntime.sleep(60)",
    ],
    ids=[
        "python",
        "a tool and its child",
        "a tool that does not listen",
        "a tool that is being started",
        "half a directory",
        "half a file",
        "one long call into C",
        "a destructor that swallows it",
    ],
)
def test_whatever_a_stage_is_at_it_stops(code: Path, press: Press, main: str) -> None:
    ended = press(*sample(code, main), ready=(code / "begun").exists)
    if "__del__" in main:  # Python itself reports it, and goes on
        ended = Ended(ended.status, ended.seconds, ended.printed.strip().splitlines()[-1])
    require_stopped(ended, "sample", code)


def test_a_signal_that_another_thread_takes_stops_it_in_order(code: Path) -> None:
    """The main thread's sleep goes on then, as after a signal that came just before it."""
    main = (
        "import signal, threading\n"
        "def take():\n    signal.pthread_kill(threading.get_ident(), signal.SIGINT)\n"
        "with replace_directory(Path('out')):\n    threading.Timer(0.2, take).start(); time.sleep(60)"
    )
    done = subprocess.run(
        sample(code, main),
        cwd=code,
        env={**os.environ, "PYTHONPATH": str(code)},
        preexec_fn=listen_to_ctrl_c,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.strip()) == (130, "sample: stopped; run again to go on")
    assert not list(code.rglob("*.partial-*"))


def test_a_stage_that_is_still_imported_stops(code: Path, press: Press) -> None:
    command = sample(code, "pass", module="Path('begun').touch(); time.sleep(60)")
    require_stopped(press(*command, ready=(code / "begun").exists), "sample", code)


def test_a_second_ctrl_c_does_not_cut_the_first_short(code: Path, press: Press) -> None:
    main = (
        "import os, signal\n"
        "try:\n    Path('begun').touch(); time.sleep(60)\n"
        "finally:\n    os.kill(os.getpid(), signal.SIGINT); time.sleep(0.3); Path('tidied').touch()"
    )
    require_stopped(press(*sample(code, main), ready=(code / "begun").exists), "sample", code)
    assert (code / "tidied").exists()


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_under_dvc_the_stage_ends_in_order(code: Path, press: Press, shell: str) -> None:
    """dash stays between the two and is interrupted as well, bash gives its place to the stage."""
    main = "try:\n    Path('begun').touch(); time.sleep(60)\nfinally:\n    time.sleep(1); Path('tidied').touch()"
    sample(code, main)
    stages = {"sample": {"cmd": "python -m stages.sample", "outs": ["out"]}}
    (code / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=code, check=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = press("dvc", "repro", ready=(code / "begun").exists, environment={"SHELL": shell, "PATH": path})
    assert eventually((code / "tidied").exists, 2)
    assert eventually(lambda: not others_in(code), 1), others_in(code)
    printed = (code / "stderr.log").read_text()
    assert printed.count("sample: stopped; run again to go on\n") == 1
    assert "Traceback" not in printed
    assert "ERROR: failed to reproduce 'sample'" in printed
    assert ended.status != 0


@pytest.fixture
def tree(worktree: Path) -> Path:
    """A work tree in which `generate` and `validate` run."""
    shutil.copytree(ROOT / "data/grammar", worktree / "data/grammar")
    (worktree / "tests").mkdir()
    shutil.copy(ROOT / "tests/inference_test_cases.json", worktree / "tests")
    return worktree


def test_generate_stops(tree: Path, press: Press) -> None:
    def written() -> bool:
        return any(file.stat().st_size for file in tree.glob("data/.*.partial-*/*.jsonl"))

    ended = press(sys.executable, "-m", "stages.generate", ready=written)
    require_stopped(ended, "generate", tree)
    assert not (tree / "data/generated.jsonl").exists()


def test_what_a_killed_generate_left_is_removed_by_the_next_run(tree: Path, press: Press) -> None:
    killed = subprocess.Popen([sys.executable, "-m", "stages.generate"], cwd=tree, stderr=subprocess.DEVNULL)
    assert eventually(lambda: list(tree.glob("data/.*.partial-*/*.jsonl")), 60)
    killed.kill()
    killed.wait()
    [left] = tree.glob("data/.*.partial-*")

    def again() -> bool:
        return any(folder != left for folder in tree.glob("data/.*.partial-*"))

    require_stopped(press(sys.executable, "-m", "stages.generate", ready=again), "generate", tree)


def test_validate_stops(tree: Path, press: Press) -> None:
    meta = {
        "shell": "bash",
        "family": "command",
        "kind": "transposition",
        "tool": "git",
        "source": "s",
        "group": "g",
    }
    texts = ("You are a shell command corrector", "gti status", "git status")
    roles = ("system", "user", "assistant")
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    (tree / "data/generated.jsonl").write_text((json.dumps({"messages": messages, "meta": meta}) + "\n") * 400_000)

    def judging() -> bool:
        return "rows judged" in (tree / "stderr.log").read_text()

    ended = press(sys.executable, "-m", "stages.validate", ready=judging)
    require_stopped(ended, "validate", tree)


def write_dataset(folder: Path, *splits: str) -> None:
    system = "You are a shell command corrector for bash. Output only the corrected command."
    meta = {"shell": "bash", "family": "command", "kind": "swap", "tool": "git", "source": "s", "group": "g"}
    folder.mkdir(parents=True)
    for split in splits:
        with (folder / f"{split}.jsonl").open("w") as file:
            for number in range(400):
                turns = (("system", system), ("user", f"gti show {number}"), ("assistant", f"git show {number}"))
                messages = [{"role": role, "content": content} for role, content in turns]
                file.write(json.dumps({"messages": messages, "meta": meta}) + "\n")


@pytest.mark.slow
def test_train_stops(worktree: Path, tiny_base: Path, press: Press) -> None:
    """The trainer is a process of its own, which gets the signal as well and says nothing of it."""
    write_params(worktree, model_size="tiny")
    config = worktree / "configs/tiny.yaml"
    config.write_text(re.sub("examples: 1500", "examples: 100000", config.read_text()))
    shutil.copytree(tiny_base, worktree / "models/tiny/base")
    write_dataset(worktree / "data/dataset", "train", "valid")

    def training() -> bool:
        return any(worktree.glob(".cache/checkpoints/*/checkpoint.pt"))

    ended = press(sys.executable, "-m", "stages.train", ready=training, patience_s=120)
    require_stopped(ended, "train", worktree)
    assert not (worktree / "models/tiny/correct/adapter").exists()


def test_evaluate_stops_with_requests_open(tree: Path, press: Press) -> None:
    """The server never answers what is asked of it many at a time."""
    server = tree / "bin/llama-server"
    server.parent.mkdir()
    write_program(server, STAND_IN)
    quants = tree / "models/135m/correct/quants"
    quants.mkdir(parents=True)
    (quants / "quants.json").write_text('{"Q4_K_M": "model.gguf"}')
    (quants / "model.gguf").touch()
    write_dataset(tree / "data/dataset", "test", "heldout")
    requests = tree / "requests.jsonl"
    environment = {
        "LLAMA_CPP_DIR": str(server.parent),
        "STAND_IN_FAULT": "stall",
        "STAND_IN_REQUESTS": str(requests),
    }

    def asked() -> bool:
        return requests.exists() and '"cache_prompt": true' in requests.read_text()

    ended = press(sys.executable, "-m", "stages.evaluate", ready=asked, environment=environment)
    require_stopped(ended, "evaluate", tree)
    assert not (tree / "metrics").exists()


def test_a_build_stops_with_its_compilers(code: Path, press: Press) -> None:
    """As the build of llama.cpp is run: make, under a progress bar."""
    (code / "Makefile").write_text("all: a b\na b:\n\t@echo '[ 10%] building'; touch begun; sleep 60\n")
    main = (
        "import re\nfrom stages.common.progress import follow_tool\n"
        "follow_tool(['make', '-j2', 'all'], what='building', counter=re.compile(r'(\\d+)%'), total=100,\n"
        "            log=Path('build.log'))"
    )
    require_stopped(press(*sample(code, main), ready=(code / "begun").exists), "sample", code)
