"""The stage `train`: what the trainer is given, and how a run on this machine ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from stages.common import paths
from stages.common.files import read_jsonl
from stages.common.paths import ModelPaths
from stages.common.promised import Promises
from stages.train import lay_out_dataset, promised_rows


def row(family: str, typed: str, answer: str) -> dict:
    contents = ("system", "For bash."), ("user", typed), ("assistant", answer)
    return {
        "messages": [{"role": role, "content": content} for role, content in contents],
        "meta": {"family": family},
    }


PROMISES = Promises.model_validate(
    {
        "shells": ["bash", "zsh"],
        "seen": 2,
        "lines": [
            {"typed": "gti push", "answer": "git push"},
            {"typed": "gut push", "answer": "git push", "shells": ["fish"]},
        ],
    }
)


@pytest.mark.parametrize(("rows", "examples", "copies"), [(100, 50, 4), (100, 200, 1), (100, 1000, 1)])
def test_a_run_sees_a_promised_line_about_as_often_as_it_should(rows: int, examples: int, copies: int) -> None:
    made = [each["messages"] for each in promised_rows(PROMISES, "correct", rows, examples)]

    asked = Counter((system["content"].split()[7], user["content"]) for system, user, _ in made)
    assert asked == {("bash.", "gti push"): copies, ("zsh.", "gti push"): copies, ("fish.", "gut push"): copies}
    assert {answer["content"] for *_, answer in made} == {"git push"}


def test_what_is_trained_on_has_other_answers_and_promised_lines_and_the_dataset_stays(worktree: Path) -> None:
    paths.DATASET.mkdir(parents=True)
    rows = [row("request", "show {}", "ls"), row("command", "gti status", "git status")]
    for split in (paths.TRAIN, paths.VALID):
        split.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")

    laid = lay_out_dataset(ModelPaths("135m", "correct"), ("request",), PROMISES, examples=4)

    def answers(file: Path) -> list[str]:
        return [each["messages"][2]["content"] for _, each in read_jsonl(file)]

    assert answers(laid / "train.jsonl") == ["show {}", "git status", "git push", "git push", "git push"]
    assert answers(laid / "valid.jsonl") == ["show {}", "git status"]
    assert answers(paths.TRAIN) == ["ls", "git status"]


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
