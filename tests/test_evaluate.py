"""What evaluate asks, and what it keeps of the answers."""

import csv
import json
from pathlib import Path

import pytest
from programs import write_program

from stages.common.chat import render_prompt
from stages.common.config import EvaluateParams
from stages.common.errors import PipelineError
from stages.evaluate import (
    context_for,
    evaluate,
    read_cases,
    read_golden,
    read_promised,
    write_plots,
    write_predictions,
)
from stages.measuring.scores import Case, Prediction

STAND_IN = Path(__file__).with_name("stand_in_llama_server.py")
PARAMS = EvaluateParams(slots=2, latency_requests=5, test_rows=None, heldout_rows=None)


def case(command: str, expected: str, shell: str = "bash", family: str = "command") -> Case:
    meta = {
        "shell": shell,
        "family": family,
        "kind": "omission",
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


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def executable(tmp_path: Path) -> Path:
    return write_program(tmp_path / "llama-server", STAND_IN)


def test_cases_are_read_whole_or_as_the_same_sample_for_the_same_seed(tmp_path: Path):
    path = write_rows(tmp_path / "test.jsonl", [row(f"ehco {n}", f"echo {n}", "fish") for n in range(50)])
    assert [item.command for item in read_cases(path, None, 1)] == [f"ehco {n}" for n in range(50)]
    assert read_cases(path, 10, 1) == read_cases(path, 10, 1)
    assert read_cases(path, 10, 1) != read_cases(path, 10, 2)
    assert len(set(read_cases(path, 10, 1)[0].meta)) == 6


def test_lines_of_a_family_that_the_size_leaves_alone_are_marked(tmp_path: Path):
    request = row("show all files", "ls -a", "bash")
    request["meta"] = {**request["meta"], "family": "request"}
    path = write_rows(tmp_path / "test.jsonl", [request, row("sl", "ls", "bash")])
    assert [item.is_left for item in read_cases(path, None, 1, left={"request"})] == [True, False]
    assert [item.is_left for item in read_cases(path, None, 1)] == [False, False]
    golden = read_golden(left={"request"})
    assert all(item.is_left == (item.meta["family"] == "request") for item in golden)
    assert any(item.is_left for item in golden)


def test_a_sample_is_of_lines_to_correct_and_those_left_alone_are_all_asked(tmp_path: Path):
    rows = [row(f"ehco {n}", f"echo {n}", "fish") for n in range(50)]
    for each in rows[:7]:
        each["meta"] = {**each["meta"], "family": "request"}
    path = write_rows(tmp_path / "test.jsonl", rows)
    sampled = read_cases(path, 10, 1, left={"request"})
    assert sum(item.is_left for item in sampled) == 7
    assert len(sampled) == 17


def test_what_is_promised_is_asked_as_the_task_asks():
    [asked] = [item for item in read_promised("wit") if item.meta["shell"] == "fish"]
    assert asked.prompt == render_prompt("fish", "gut push", "wit")


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
    answers["endless"] = " ".join(["end"] * 200)
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
        "promised": [case("gti status", "git status"), case("endless", "end")],
    }

    figures, answered = evaluate(executable, tmp_path / "model.gguf", splits, PARAMS, seed=3)

    assert [prediction.case for prediction in answered["test"]] == test
    assert [answer.is_exact for answer in answered["test"]] == [n % 2 == 0 for n in range(20) for _ in range(2)]
    assert [prediction.answer for prediction in answered["heldout"]] == ["rsnc a b"]
    assert (figures["golden_exact_match"], figures["promised_exact_match"]) == (0.0, 0.0)
    assert (figures["exact_match"], figures["exact_match_n"]) == (0.5, 40)
    assert figures["runaway_rate"] == pytest.approx(1 / 44, abs=1e-6)
    assert {"figure": "latency", "n": 5} in figures["samples"]
    assert figures["file_mb"] == 2.5
    assert 0 < figures["latency_p50_ms"] <= figures["latency_p95_ms"]
    assert figures["machine_slowness"] > 0
    assert figures["load_ms"] > 0
    requests = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
    single = [request for request in requests if not request["cache_prompt"]]
    assert len(single) == 3 + 5, "warm-up and latency pay for their whole prompts"
    assert len(requests) == len(single) + 44


def test_predictions_are_kept_for_reading(tmp_path: Path):
    predictions = {
        "test": [Prediction(case("äls -x", "ls -x"), "sudo ls -x")],
        "heldout": [Prediction(case("sl", "ls"), "ls", cut_off=True)],
    }
    write_predictions(tmp_path / "Q4_K_M.jsonl", predictions)
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
    assert [line.get("cut_off", False) for line in lines] == [False, True]


def test_the_plots_hold_exact_match_by_shell_family_and_kind(tmp_path: Path):
    kept = Prediction(Case("xqz", "xqz", {**case("sl", "ls").meta, "family": "unfixable"}, is_left=True), "xqz")
    test = [Prediction(case("sl", "ls", shell="zsh"), "ls"), Prediction(case("sl", "ls"), "sl"), kept]
    write_plots(tmp_path / "eval", {"test": test, "golden": test[:1]})
    tables = {}
    for path in (tmp_path / "eval").iterdir():
        with path.open(newline="") as file:
            tables[path.name] = [(line["name"], line["exact_match"], line["n"]) for line in csv.DictReader(file)]
    assert tables == {
        "by_shell.csv": [("bash", "0.0", "1"), ("zsh", "1.0", "1")],
        "by_family.csv": [("command", "0.5", "2"), ("unfixable", "1.0", "1")],
        "by_kind.csv": [("omission", "0.666667", "3")],
        "golden_by_family.csv": [("command", "1.0", "1")],
    }
