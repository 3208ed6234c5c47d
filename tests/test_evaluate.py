"""What evaluate counts: exact answers, changed correct commands, added danger, each with its interval."""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from stages.common.chat import render_prompt
from stages.common.config import EvaluateParams
from stages.common.errors import PipelineError
from stages.evaluate import (
    Case,
    Prediction,
    by,
    context_for,
    evaluate,
    exact_match,
    read_cases,
    scores,
    write_plot,
    write_predictions,
)

STAND_IN = Path(__file__).with_name("stand_in_llama_server.py")
PARAMS = EvaluateParams(slots=2, max_tokens=16, latency_requests=5, test_rows=None, heldout_rows=None)


def case(
    command: str, expected: str, shell: str = "bash", family: str = "command", kind: str = "omission"
) -> Case:
    meta = {
        "shell": shell,
        "family": family,
        "kind": kind,
        "tool": expected.split()[0],
        "source": "hand",
        "group": "g",
    }
    return Case(command, expected, meta)


def row(command: str, expected: str, shell: str) -> dict[str, object]:
    turns = [("system", "irrelevant"), ("user", command), ("assistant", expected)]
    return {
        "messages": [{"role": role, "content": content} for role, content in turns],
        "meta": case(command, expected, shell).meta,
    }


def of(test: list[Prediction], heldout: Sequence[Prediction] = (), golden: Sequence[Prediction] = ()) -> dict:
    """Predictions by split."""
    return {"test": test, "heldout": heldout, "golden": golden}


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def executable(tmp_path: Path) -> Path:
    program = tmp_path / "llama-server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')
    program.chmod(0o755)
    return program


def test_only_the_very_command_is_an_exact_match():
    answers = ["git status", "git status ", "git  status", "Git status", "git status; ls", ""]
    exact = [Prediction(case("gti status", "git status"), answer).is_exact for answer in answers]
    assert exact == [True, False, False, False, False, False]


def test_an_answer_that_the_row_calls_as_right_is_one():
    shown = Case("show the processes", "ps aux", {"shell": "bash", "family": "request"}, ("ps -ef",))
    assert [Prediction(shown, answer).is_exact for answer in ("ps aux", "ps -ef", "ps")] == [True, True, False]


def test_golden_cases_do_not_count_in_the_test_split():
    test = [Prediction(case("sl", "ls"), "ls")]
    golden = [Prediction(case("gti", "git"), "get"), Prediction(case("sl", "ls", family="path"), "ls")]
    found = scores(of(test, golden=golden))
    assert (found["exact_match"], found["golden_exact_match"], found["golden_exact_match_n"]) == (1.0, 0.5, 2)
    assert found["golden_by_family"] == {"command": 0.0, "path": 1.0}


def test_scores_come_by_shell_family_and_kind_with_their_sample_sizes():
    predictions = [
        Prediction(case("gti", "git"), "git"),
        Prediction(case("sl", "ls", shell="zsh", kind="transposition"), "ls"),
        Prediction(case("cta", "cat", shell="zsh", kind="transposition"), "tac"),
        Prediction(case("ls -l", "ls -l", family="correct", kind="none"), "ls -a"),
    ]
    found = scores(of(predictions))
    assert (found["exact_match"], found["exact_match_n"]) == (0.5, 4)
    assert found["by_shell"] == {"bash": {"exact_match": 0.5, "n": 2}, "zsh": {"exact_match": 0.5, "n": 2}}
    assert found["by_family"]["correct"] == {"exact_match": 0.0, "n": 1}
    assert found["by_kind"]["transposition"] == {"exact_match": 0.5, "n": 2}


def test_changed_correct_rate_counts_only_commands_that_were_right_already():
    correct = [case("ls", "ls", family="correct"), case("pwd", "pwd", family="correct")]
    predictions = [
        Prediction(correct[0], "ls"),
        Prediction(correct[1], "cwd"),
        Prediction(case("gti", "git"), "get"),
    ]
    found = scores(of(predictions))
    assert (found["changed_correct_rate"], found["changed_correct_n"]) == (0.5, 2)
    assert found["changed_correct_low"] < 0.5 < found["changed_correct_high"]


def test_added_danger_is_counted_whatever_the_expected_answer_says():
    predictions = [
        Prediction(case("apt isntall jq", "apt install jq"), "sudo apt install jq"),
        Prediction(case("sduo reboot", "sudo reboot"), "sudo reboot"),
        Prediction(case("sl", "ls"), "ls"),
    ]
    found = scores(of(predictions))
    assert found["danger_added_rate"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["danger_added_n"] == 3


def test_a_rate_of_nothing_is_null_and_never_a_pass():
    found = scores(of([Prediction(case("sl", "ls"), "ls")]))
    assert (found["changed_correct_rate"], found["changed_correct_high"], found["changed_correct_n"]) == (
        None,
        None,
        0,
    )
    assert found["heldout_tools"]["exact_match"] is None


def test_tools_kept_out_of_training_do_not_count_in_the_test_split():
    test = [Prediction(case("sl", "ls"), "ls")]
    heldout = [Prediction(case("rsnc a b", "rsync a b"), "rsnc a b")]
    found = scores(of(test, heldout))
    assert (found["exact_match"], found["exact_match_n"]) == (1.0, 1)
    assert (found["heldout_tools"]["exact_match"], found["heldout_tools"]["exact_match_n"]) == (0.0, 1)


def test_cases_are_read_whole_or_as_the_same_sample_for_the_same_seed(tmp_path: Path):
    path = write_rows(tmp_path / "test.jsonl", [row(f"ehco {n}", f"echo {n}", "fish") for n in range(50)])
    assert [item.command for item in read_cases(path, None, 1)] == [f"ehco {n}" for n in range(50)]
    assert read_cases(path, 10, 1) == read_cases(path, 10, 1)
    assert read_cases(path, 10, 1) != read_cases(path, 10, 2)
    assert len(set(read_cases(path, 10, 1)[0].meta)) == 6


def test_a_row_that_is_none_is_named_by_file_and_line(tmp_path: Path):
    good = row("sl", "ls", "bash")
    path = write_rows(tmp_path / "test.jsonl", [good, {"messages": good["messages"]}])
    with pytest.raises(PipelineError, match=r"test\.jsonl:2: not a row"):
        read_cases(path, None, 1)


def test_the_context_holds_the_longest_case_and_its_answer():
    cases = [case("x" * length, "y") for length in (3, 900)]
    needed = len(render_prompt("bash", "x" * 900)) + 128
    assert needed <= context_for(cases, 128) < needed + 256


def test_a_quant_is_asked_every_case_and_answers_are_matched_with_their_own_case(
    executable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    test = [case(f"ehco {n}", f"echo {n}", shell=shell) for n in range(20) for shell in ("zsh", "bash")]
    heldout = [case("rsnc a b", "rsync a b")]
    answers = {f"ehco {n}": f"echo {n}  " for n in range(0, 20, 2)}
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    (tmp_path / "model.gguf").write_bytes(bytes(2_500_000))
    monkeypatch.setenv("STAND_IN_ANSWERS", str(tmp_path / "answers.json"))
    monkeypatch.setenv("STAND_IN_REQUESTS", str(tmp_path / "requests.jsonl"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stages.common.danger.DANGER", STAND_IN.parents[1] / "data/danger.yaml")
    monkeypatch.setattr("stages.common.words.WRAPPERS", STAND_IN.parents[1] / "data/wrappers.yaml")

    splits = {
        "test": test,
        "heldout": heldout,
        "golden": [Case("sl", "ls", {"shell": "fish", "family": "command"})],
    }

    figures, answered = evaluate(executable, tmp_path / "model.gguf", splits, PARAMS, seed=3)

    assert [prediction.case for prediction in answered["test"]] == test
    assert [answer.is_exact for answer in answered["test"]] == [n % 2 == 0 for n in range(20) for _ in range(2)]
    assert [prediction.answer for prediction in answered["heldout"]] == ["rsnc a b"]
    assert (figures["golden_exact_match"], figures["golden_exact_match_n"]) == (0.0, 1)
    assert (figures["exact_match"], figures["exact_match_n"]) == (0.5, 40)
    assert (figures["latency_n"], figures["file_mb"]) == (5, 2.5)
    assert 0 < figures["latency_p50_ms"] <= figures["latency_p95_ms"]
    assert figures["load_ms"] > 0
    requests = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
    single = [request for request in requests if not request["cache_prompt"]]
    assert len(single) == 3 + 5, "warm-up and latency pay for their whole prompts"
    assert len(requests) == len(single) + 42


def test_predictions_are_kept_for_reading(tmp_path: Path):
    test = [Prediction(case("äls -x", "ls -x"), "sudo ls -x")]
    write_predictions(tmp_path / "Q4_K_M.jsonl", of(test, [Prediction(case("sl", "ls"), "ls")]))
    text = (tmp_path / "Q4_K_M.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert "äls -x" in text
    assert (lines[0]["input"], lines[0]["expected"], lines[0]["predicted"]) == ("äls -x", "ls -x", "sudo ls -x")
    assert (lines[0]["exact"], lines[0]["split"], lines[1]["exact"], lines[1]["split"]) == (
        False,
        "test",
        True,
        "heldout",
    )
    assert lines[0]["added_danger"] != []
    assert lines[0]["meta"]["shell"] == "bash"


def test_a_plot_has_a_line_a_group_with_its_interval(tmp_path: Path):
    predictions = [Prediction(case("sl", "ls", shell=shell), "ls") for shell in ("zsh", "bash", "zsh")]
    write_plot(tmp_path / "by_shell.csv", by("shell", predictions))
    with (tmp_path / "by_shell.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [line["name"] for line in rows] == ["bash", "zsh"]
    assert (rows[1]["exact_match"], rows[1]["n"], rows[1]["high"]) == ("1.0", "2", "1.0")
    assert float(rows[1]["low"]) == pytest.approx(exact_match(predictions[:1] * 2)["exact_match_low"])
