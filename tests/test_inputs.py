"""A stage whose inputs are edited while it is at work fails, names them, and dvc records nothing of it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SAMPLE = """
import time
from pathlib import Path
from stages.common.cli import run_stage

def main():
    Path("begun").touch()
    while not Path("go").exists():
        time.sleep(0.02)
    Path("out").write_text("done")

if __name__ == "__main__":
    run_stage("sample", main)
"""
STAGE = {
    "cmd": "python -m stages.sample",
    "deps": ["stages/sample.py", "table.yaml", "models/${model_size}", "stages/parts", "absent"],
    "params": ["seed", {"configs/${model_size}.yaml": ["train", "train_of.${task}", "card.name"]}],
    "outs": ["out"],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work tree with one stage, `sample`, which waits until a file `go` is there."""
    monkeypatch.chdir(tmp_path)
    for folder in ("stages/parts", "models/small", "models/large", "configs"):
        Path(folder).mkdir(parents=True)
    for name in ("__init__.py", "common"):
        Path("stages", name).symlink_to(ROOT / "stages" / name)
    Path("stages/sample.py").write_text(SAMPLE)
    Path("stages/parts/__init__.py").touch()
    Path("stages/parts/part.py").write_text("PART = 1\n")
    Path("table.yaml").write_text("a: 1\n")
    Path("models/small/weights").write_bytes(bytes(100))
    Path("models/large/weights").write_bytes(bytes(200))
    Path("params.yaml").write_text("model_size: small\ntask: correct\nseed: 101\ngate: {limit: 1}\n")
    for size in ("small", "large"):
        Path(f"configs/{size}.yaml").write_text(
            "train: {rank: 8}\ntrain_of: {correct: {rank: 9}, wit: {rank: 4}}\ncard: {name: m, title: M}\n"
        )
    Path("dvc.yaml").write_text(yaml.safe_dump({"vars": ["params.yaml"], "stages": {"sample": STAGE}}))
    shutil.copy(ROOT / ".dvcignore", ".")
    return tmp_path


def edited_meanwhile(edit: Callable[[], object], *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the stage, and edit something when it has begun."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        argv or (sys.executable, "-m", "stages.sample"),
        env={**os.environ, "PATH": path, "DVC_SITE_CACHE_DIR": ".dvc/tmp/site"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not Path("begun").exists() and process.poll() is None:
        time.sleep(0.02)
    edit()
    Path("go").touch()
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def replace(file: str, old: str, new: str) -> Callable[[], object]:
    def edit() -> None:
        text = Path(file).read_text()
        assert old in text
        Path(file).write_text(text.replace(old, new))

    return edit


def swap() -> None:
    """Another file of the same size under the name, as editors save."""
    Path("new").write_text("PART = 2\n")
    Path("new").replace("stages/parts/part.py")


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (replace("params.yaml", "101", "202"), "seed in params.yaml"),
        (replace("configs/small.yaml", "train: {rank: 8}", "train: {rank: 7}"), "train in configs/small.yaml"),
        (replace("configs/small.yaml", "rank: 9", "rank: 1"), "train_of.correct in configs/small.yaml"),
        (replace("configs/small.yaml", "name: m", "name: n"), "card.name in configs/small.yaml"),
        (replace("table.yaml", "1", "2"), "table.yaml"),
        (replace("stages/sample.py", "done", "DONE"), "stages/sample.py"),
        (swap, "stages/parts/part.py"),
        (lambda: Path("stages/parts/more.py").touch(), "stages/parts/more.py"),
        (Path("stages/parts/part.py").unlink, "stages/parts/part.py"),
        (lambda: Path("models/small/weights").write_bytes(bytes(99) + b"1"), "models/small/weights"),
        (lambda: Path("absent").touch(), "absent"),
    ],
)
def test_what_a_stage_was_given_and_is_changed_fails_it(
    project: Path, edit: Callable[[], object], named: str
) -> None:
    done = edited_meanwhile(edit)
    assert done.stderr == (
        f"sample: error: {named}: changed while this stage was at work, so its outputs belong to neither version; "
        "run again\n"
    )
    assert done.returncode == 1


def there_and_back() -> None:
    text = Path("table.yaml").read_text()
    Path("table.yaml").write_text("a: 2\n")
    Path("table.yaml").unlink()
    Path("table.yaml").write_text(text)


def bytecode() -> None:
    Path("stages/parts/__pycache__").mkdir(exist_ok=True)
    Path("stages/parts/__pycache__/part.cpython-311.pyc").write_bytes(b"compiled")


@pytest.mark.parametrize(
    "edit",
    [
        lambda: None,
        replace("params.yaml", "limit: 1", "limit: 2"),
        replace("configs/small.yaml", "rank: 4", "rank: 5"),
        replace("configs/small.yaml", "title: M", "title: N"),
        replace("configs/large.yaml", "rank: 8", "rank: 5"),
        lambda: Path("models/large/weights").touch(),
        there_and_back,
        bytecode,
        lambda: Path("params.yaml").write_text("# tidied\n" + Path("params.yaml").read_text()),
    ],
    ids=[
        "nothing",
        "a parameter of another stage",
        "a setting of another task",
        "a setting of another stage",
        "another size's config",
        "another size's model",
        "a table, there and back",
        "bytecode",
        "a comment",
    ],
)
def test_what_is_not_its_own_does_not_concern_a_stage(project: Path, edit: Callable[[], object]) -> None:
    done = edited_meanwhile(edit)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_large_file_that_is_written_to_has_changed(project: Path) -> None:
    """Nobody waits for its digest at the beginning."""
    with Path("models/small/weights").open("wb") as file:
        file.truncate((64 << 20) + 1)
    done = edited_meanwhile(lambda: os.utime("models/small/weights"))
    assert "models/small/weights: changed while this stage was at work" in done.stderr


def test_many_changes_are_one_line(project: Path) -> None:
    def edit() -> None:
        for number in range(9):
            Path(f"stages/parts/{number}.py").touch()

    assert edited_meanwhile(edit).stderr.startswith(
        "sample: error: stages/parts/0.py, stages/parts/1.py, stages/parts/2.py and 6 more: changed while"
    )


def test_dvc_records_nothing_of_it_and_runs_it_again(project: Path) -> None:
    Path("absent").touch()
    subprocess.run(["dvc", "init", "-q", "--no-scm"], check=True)
    done = edited_meanwhile(replace("params.yaml", "101", "202"), "dvc", "repro")
    assert done.returncode != 0
    assert "seed in params.yaml: changed while this stage was at work" in done.stderr
    assert not Path("dvc.lock").exists()
    again = edited_meanwhile(lambda: None, "dvc", "repro")
    assert again.returncode == 0, again.stderr
    assert "Running stage 'sample'" in again.stdout
    assert "seed: 202" in Path("dvc.lock").read_text()


def test_a_stage_that_is_stopped_and_continued_is_held_to_what_it_began_with(project: Path) -> None:
    """As on a laptop whose lid was closed."""
    process = subprocess.Popen([sys.executable, "-m", "stages.sample"], stderr=subprocess.PIPE, text=True)
    while not Path("begun").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)
    replace("table.yaml", "1", "2")()
    Path("go").touch()
    process.send_signal(signal.SIGCONT)
    assert "table.yaml: changed" in process.communicate(timeout=30)[1]
    assert process.returncode == 1


@pytest.mark.parametrize("file", ["dvc.yaml", "params.yaml"])
def test_malformed_settings_are_one_line(project: Path, file: str) -> None:
    Path(file).write_text("seed: 1\nseed: 2\n")
    Path("go").touch()
    done = subprocess.run([sys.executable, "-m", "stages.sample"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"sample: error: {file}:2: the key 'seed' is there twice, first in line 1")
    assert len(done.stderr.splitlines()) == 1
