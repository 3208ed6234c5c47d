"""The stage `train`: what the trainer is given, and how a run on this machine ends."""

import json
from collections import Counter
from pathlib import Path

import pytest

from stages.common import paths
from stages.common.errors import PipelineError
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


def test_a_line_that_is_no_row_is_named(worktree: Path) -> None:
    paths.DATASET.mkdir(parents=True)
    paths.TRAIN.write_text(json.dumps(row("command", "gti status", "git status")) + "\n{}\n", encoding="utf-8")

    with pytest.raises(PipelineError, match=r"train.jsonl:2: not a row of a dataset"):
        lay_out_dataset(ModelPaths("135m", "correct"), (), PROMISES, examples=4)
