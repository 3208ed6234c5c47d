"""The stage `train`: what the trainer is given, and how a run on this machine ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from stages.common import paths
from stages.common.chat import user_text
from stages.common.files import read_jsonl
from stages.common.paths import ModelPaths
from stages.train import dataset_of, left_alone


def row(family: str, typed: str, answer: str, task: str = "correct") -> dict:
    contents = ("system", "For bash."), ("user", user_text(task, typed)), ("assistant", answer)
    return {
        "messages": [{"role": role, "content": content} for role, content in contents],
        "meta": {"family": family},
    }


@pytest.mark.parametrize("task", ["correct", "wit"])
def test_a_family_that_a_size_leaves_alone_is_answered_with_what_was_typed(task: str) -> None:
    request = row("request", "show running processes", "ps aux", task)
    typo = row("command", "gti status", "git status", task)

    assert left_alone(request, ["request"], task)["messages"][2]["content"] == "show running processes"
    assert left_alone(request, ["request"], task)["messages"][:2] == request["messages"][:2]
    assert left_alone(request, [], task) == request
    assert left_alone(typo, ["request"], task) == typo


def test_only_a_size_that_leaves_families_alone_is_trained_from_a_copy(worktree: Path) -> None:
    paths.DATASET.mkdir(parents=True)
    rows = [row("request", "zeige {}", "ls"), row("command", "gti status", "git status")]
    for split in (paths.TRAIN, paths.VALID):
        split.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    model = ModelPaths("135m", "correct")

    assert dataset_of(model, ()) == paths.DATASET
    copy = dataset_of(model, ("request",))

    assert [each["messages"][2]["content"] for _, each in read_jsonl(copy / "train.jsonl")] == [
        "zeige {}",
        "git status",
    ]
    assert [each["messages"][2]["content"] for _, each in read_jsonl(paths.TRAIN)] == ["ls", "git status"]


@pytest.mark.slow
def test_ctrl_c_ends_a_run_within_two_seconds_in_one_line(trained: Path) -> None:
    """A terminal sends SIGINT to all of the foreground's processes."""
    paths.DATASET.mkdir(parents=True)
    rows = "".join(json.dumps(row("command", f"gti log -{n}", f"git log -{n}")) + "\n" for n in range(3000))
    for split in (paths.TRAIN, paths.VALID):
        split.write_text(rows, encoding="utf-8")
    settings = Path("configs/tiny.yaml")
    settings.write_text(settings.read_text().replace("  examples: 1500", "  examples: 3000000"))
    with Path("stderr").open("w") as err:
        stage = subprocess.Popen(
            [sys.executable, "-m", "stages.train"], stdin=subprocess.DEVNULL, stderr=err, start_new_session=True
        )
    while "examples/s" not in (shown := Path("stderr").read_text()):
        assert stage.poll() is None, shown
        time.sleep(0.1)

    started = psutil.Process(stage.pid).children(recursive=True)
    assert started

    began = time.monotonic()
    os.killpg(stage.pid, signal.SIGINT)
    status = stage.wait(timeout=30)

    assert time.monotonic() - began < 2
    assert status == 130
    lines = [line for line in Path("stderr").read_text().splitlines() if line and not line.startswith("train:  ")]
    assert lines == ["train: stopped; run again to go on"]
    assert not any(process.is_running() for process in started)
