"""The golden cases: well formed, in the shells' shares, each answer safe, each found where a row repeats it."""

import json
from collections import Counter

import pytest

from stages.common import golden
from stages.common.config import data_params
from stages.common.danger import added_danger
from stages.common.errors import PipelineError
from stages.common.golden import golden_cases
from stages.common.words import blanks_once
from stages.validating.limits import limits
from stages.validating.syntax import parses

CASES = golden_cases()


def test_there_are_enough_in_the_shares_of_the_shells():
    assert len(CASES) >= 500
    counts = Counter(case.shell for case in CASES)
    for shell, share in data_params().shells.items():
        assert abs(counts[shell] / len(CASES) - share) < 0.01, shell


def test_no_case_stands_twice():
    assert len({(case.shell, blanks_once(case.typed)) for case in CASES}) == len(CASES)


def test_every_case_has_a_known_family_and_answers_that_differ():
    for case in CASES:
        assert case.family in limits().families, case
        assert len(set(case.accept)) == len(case.accept), case
        assert (case.family == "correct") == (case.typed == case.accept[0]), case


def test_no_answer_adds_danger_or_is_no_command():
    for case in CASES:
        for answer in case.accept:
            assert added_danger(case.shell, case.typed, answer) == [], case
            assert parses(case.shell, answer), (case, answer)


def test_a_malformed_case_is_named(tmp_path, monkeypatch):
    path = tmp_path / "cases.json"
    good = {"shell": "bash", "input": "sl", "accept": ["ls"], "family": "command"}
    path.write_text(json.dumps([good, {**good, "accept": []}]))
    monkeypatch.setattr(golden, "GOLDEN", path)
    with pytest.raises(PipelineError, match=r"cases.json: case 2: not a shell"):
        golden_cases()
