"""What a training run is taught (stages/common/lessons.py)."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stages.common import paths
from stages.common.errors import PipelineError
from stages.common.files import read_jsonl
from stages.common.lessons import lay_out, lessons
from stages.common.paths import ModelPaths
from stages.common.promised import Promises


def row(family: str, typed: str, answer: str) -> dict[str, Any]:
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
ROWS = [row("command", f"ech {n}", f"echo {n}") for n in range(100)]


def taught(examples: int, seed: int = 1) -> list[dict[str, Any]]:
    return lessons(ROWS, PROMISES, "correct", examples, seed)


def test_a_short_run_sees_as_many_rows_as_it_is_long_each_once() -> None:
    typed = Counter(each["messages"][1]["content"] for each in taught(examples=40))

    assert typed.total() == 40
    assert typed.pop("gti push") == 4  # in two shells, twice each
    assert typed.pop("gut push") == 2
    assert set(typed.values()) == {1}


@pytest.mark.parametrize(("examples", "copies"), [(50, 2), (100, 2), (200, 1), (1000, 1)])
def test_a_run_sees_a_promised_line_about_as_often_as_it_should(examples: int, copies: int) -> None:
    asked = Counter(
        (system["content"].split()[7], user["content"], answer["content"])
        for system, user, answer in (each["messages"] for each in taught(examples))
        if answer["content"] == "git push"
    )

    lines = ("bash.", "gti push"), ("zsh.", "gti push"), ("fish.", "gut push")
    assert asked == {(*line, "git push"): copies for line in lines}


def test_a_long_run_has_every_row() -> None:
    assert [each for each in taught(examples=1000) if each in ROWS] == ROWS


def test_rows_are_drawn_by_the_seed() -> None:
    assert taught(40, seed=1) == taught(40, seed=1)
    assert taught(40, seed=1) != taught(40, seed=2)


def test_what_is_laid_out_has_other_answers_and_promised_lines_and_the_dataset_stays(worktree: Path) -> None:
    paths.DATASET.mkdir(parents=True)
    rows = [row("request", "show {}", "ls"), row("command", "gti status", "git status")]
    for split in (paths.TRAIN, paths.VALID):
        split.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")

    laid = lay_out(ModelPaths("135m", "correct"), ("request",), PROMISES, examples=5, seed=1)

    def answers(file: Path) -> list[str]:
        return [each["messages"][2]["content"] for _, each in read_jsonl(file)]

    assert answers(laid / "train.jsonl") == ["show {}", "git status", "git push", "git push", "git push"]
    assert answers(laid / "valid.jsonl") == ["show {}", "git status"]
    assert answers(paths.TRAIN) == ["ls", "git status"]


def test_a_line_that_is_no_row_is_named(worktree: Path) -> None:
    paths.DATASET.mkdir(parents=True)
    paths.TRAIN.write_text(json.dumps(row("command", "gti status", "git status")) + "\n{}\n", encoding="utf-8")

    with pytest.raises(PipelineError, match=r"train.jsonl:2: not a row of a dataset"):
        lay_out(ModelPaths("135m", "correct"), (), PROMISES, examples=4, seed=1)
