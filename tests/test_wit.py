"""The task `wit`: its prompt, what tools are made to say, and what the rules make of it."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rapidfuzz.distance import OSA

from stages.common.chat import (
    OUTPUT_CHARS,
    TOOLS,
    WIT,
    ToolResult,
    parse_user_text,
    render_prompt,
    shown_output,
    system_prompt,
    user_text,
)
from stages.common.config import DataParams
from stages.generate import generate
from stages.generating.tables import read_tables
from stages.validating.judging import read_and_judge

PARAMS = DataParams(
    rows=1200,
    shells={"bash": 0.4, "zsh": 0.1, "fish": 0.1, "tcsh": 0.1, "powershell": 0.2, "cmd": 0.1},
    families={
        "command": 0.3,
        "subcommand": 0.2,
        "option": 0.2,
        "path": 0.1,
        "request": 0.05,
        "correct": 0.1,
        "unfixable": 0.05,
    },
    grammar_share=0.1,
    max_chars=100,
    heldout_tools=["cargo"],
)
RESULTS = (
    ToolResult("which_binary", "gti", "gti not found"),
    ToolResult("list_similar", "gti", "git, gtf"),
)


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return list(generate(read_tables(), PARAMS, 3, WIT))


def results_of(row: dict) -> tuple[ToolResult, ...]:
    return parse_user_text(WIT, row["messages"][1]["content"])[1]


def test_the_prompt_is_the_clients_to_the_byte():
    assert render_prompt("zsh", "gti status", WIT, RESULTS) == (
        "<|im_start|>system\n"
        "You are a shell command assistant for zsh. Use the provided tool results to generate the correct "
        "command. /no_think<|im_end|>\n"
        "<|im_start|>user\n"
        "Input: gti status\n\n"
        "Tool results:\n"
        "- which_binary(gti): gti not found\n"
        "- list_similar(gti): git, gtf\n"
        "<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert user_text(WIT, "gti status") == "Input: gti status\n\n"


@pytest.mark.parametrize("results", [(), RESULTS, (ToolResult("help_output", "f(x): y", ""),)])
def test_a_users_message_can_be_read_back(results):
    typed, found = parse_user_text(WIT, user_text(WIT, "echo (a): b", results))
    assert typed == "echo (a): b"
    assert user_text(WIT, typed, found) == user_text(WIT, "echo (a): b", results)


@pytest.mark.parametrize("text", ["gti status", "Input: a\n", "Input: a\n\nTool results:\n", "Input: a\n\nmore\n"])
def test_any_other_message_is_refused(text):
    with pytest.raises(ValueError, match="Input"):
        parse_user_text(WIT, text)


def test_output_is_one_line_cut_at_200_characters():
    assert shown_output("usage:\n   git   [-v]\n") == "usage: git [-v]"
    assert shown_output("x" * 200) == "x" * 200
    assert shown_output("x" * 201) == "x" * OUTPUT_CHARS + "..."


def test_rows_come_with_and_without_results_in_the_shares_of_the_table(rows):
    table = read_tables().tool_results
    counts = Counter(len(results_of(row)) for row in rows)
    assert set(counts) == {0, 1, 2, 3}
    assert 1 - counts[0] / len(rows) == pytest.approx(table["with_results_share"], abs=0.04)
    for count, share in enumerate(table["counts"], start=1):
        assert counts[count] / (len(rows) - counts[0]) == pytest.approx(share / 100, abs=0.06)
    assert {result.tool for row in rows for result in results_of(row)} == set(TOOLS)


def named_by(result: ToolResult) -> list[str]:
    return [name.lower() for name in result.output.split(", ")]


def test_lists_of_similar_commands_are_useful_and_some_mislead(rows):
    """The right command is in most lists, but not always the first: to copy that one is no answer."""
    ranks = Counter()
    for row in rows:
        right, typed = row["messages"][2]["content"].split()[0].lower(), row["messages"][1]["content"].split()[1]
        if row["meta"]["family"] != "command" or right == typed.lower():
            continue
        for result in results_of(row):
            if result.tool == "list_similar" and result.output not in ("", "none", "no output"):
                names = named_by(result)
                ranks[names.index(right) if right in names else "not there"] += 1
    later = sum(ranks.values()) - ranks[0] - ranks["not there"]
    assert ranks[0] > ranks["not there"] > 0
    assert later > 0.1 * sum(ranks.values())


def test_some_results_say_nothing_and_long_ones_are_cut(rows):
    outputs = [result.output for row in rows for result in results_of(row)]
    assert sum(output in ("", "none", "no output", "not set") for output in outputs) / len(outputs) > 0.02
    assert any(len(output) == OUTPUT_CHARS + 3 for output in outputs)


def test_no_tool_is_asked_of_what_only_the_answer_tells(rows):
    """A client that has seen `gti` alone cannot ask for help on `git`, unless a similar name led it there."""
    for row in rows:
        typed = row["messages"][1]["content"].split("\n")[0]
        for result in results_of(row):
            if result.tool in ("which_binary", "list_similar"):
                assert result.argument in typed
            elif result.tool in ("help_output", "man_page"):
                first, *subcommands = result.argument.split(" ")
                assert all(word in typed for word in subcommands)
                near = (
                    OSA.distance(first.lower(), word.lower()) <= max(1, len(word) // 2) for word in typed.split()
                )
                assert first in typed or any(near), (typed, result)


def test_a_variable_is_rarely_asked_for_that_the_line_does_not_name(rows):
    named = Counter(
        result.argument in row["messages"][1]["content"].split("\n")[0]
        for row in rows
        for result in results_of(row)
        if result.tool == "get_env_var"
    )
    assert named[True] > 0
    assert 0 < named[False] < 0.05 * len(rows)


def which_and_help(rows: list[dict]) -> list[tuple[bool, bool]]:
    """Of rows where both speak of the same command: whether each of them says that it is not there."""
    gone = ("not found", "which: no ", "recognized", "no help", "could not find")
    found = []
    for row in rows:
        said = {result.tool: result for result in results_of(row)}
        which, asked = said.get("which_binary"), said.get("help_output")
        if which is None or asked is None or row["meta"]["shell"] == "cmd":
            continue  # `where` does not know what cmd itself can do
        outputs = (which.output, asked.output)
        if asked.argument.split(" ")[0] == which.argument and not {"", "none", "no output"} & set(outputs):
            found.append(tuple(any(text in output for text in gone) for output in outputs))
    return found


@pytest.mark.parametrize("absent", [0.04, 1.0])
def test_the_results_of_a_row_agree(absent):
    """What `which` does not find has no help, and what it finds is not called unknown."""
    tables = read_tables()
    tables = replace(tables, tool_results={**tables.tool_results, "absent_share": absent})
    said = which_and_help(list(generate(tables, PARAMS, 3, WIT)))
    assert len(said) > 30
    assert [pair for pair in said if pair[0] != pair[1]] == []


def test_the_same_seed_gives_the_same_rows(rows):
    assert list(generate(read_tables(), PARAMS, 3, WIT))[:100] == rows[:100]


def test_generated_rows_keep_every_rule(rows, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read, findings = read_and_judge([file], PARAMS.max_chars)
    assert [str(finding) for finding in findings] == []
    assert {row.task for row in read} == {WIT}


GOOD = ("gti status", "git status", RESULTS)
BAD = {
    "a tool that there is not": ("schema", (GOOD[0], GOOD[1], (ToolResult("run", "gti", "no"),))),
    "output that is too long": ("schema", (GOOD[0], GOOD[1], (ToolResult("man_page", "git", "x" * 204),))),
    "output with two blanks": ("schema", (GOOD[0], GOOD[1], (ToolResult("man_page", "git", "a  b"),))),
    "a secret that a tool shows": (
        "private",
        (GOOD[0], GOOD[1], (ToolResult("get_env_var", "KEY", "AKIA" + "ABCDEFGHIJKLMNOP"),)),
    ),
    "a password that a tool shows": (
        "private",
        (GOOD[0], GOOD[1], (ToolResult("get_env_var", "DB", "pwd: hunter2really"),)),
    ),
    "danger that a tool suggests": (
        "danger",
        ("apt update", "sudo apt update", (ToolResult("help_output", "apt", "run it as: sudo apt update"),)),
    ),
    "a path from nowhere": ("invented", ("cta a.txt", "cat /srv/else/a.txt", RESULTS)),
}


def written(folder: Path, typed: str, answer: str, results: tuple[ToolResult, ...]) -> Path:
    texts = (system_prompt("bash", WIT), user_text(WIT, typed, results), answer)
    roles = ("system", "user", "assistant")
    meta = {
        "shell": "bash",
        "family": "command",
        "kind": "transposition",
        "tool": answer.split()[0],
        "source": "hand",
    }
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    path = folder / "rows.jsonl"
    path.write_text(json.dumps({"messages": messages, "meta": meta}) + "\n")
    return path


def test_a_good_row_passes(tmp_path):
    assert read_and_judge([written(tmp_path, *GOOD)], 100)[1] == []


@pytest.mark.parametrize("name", BAD)
def test_each_fault_is_found_by_its_rule(tmp_path, name):
    rule, row = BAD[name]
    _, findings = read_and_judge([written(tmp_path, *row)], 100)
    assert [finding.rule for finding in findings] == [rule]


def test_pwd_with_a_tools_complaint_is_a_command_and_no_password(tmp_path):
    said = (ToolResult("help_output", "pwdd", "pwdd: command not found"),)
    assert read_and_judge([written(tmp_path, "pwdd", "pwd", said)], 100)[1] == []


def test_a_value_may_come_from_what_a_tool_said(tmp_path):
    said = (ToolResult("get_env_var", "HOME", "/home/user"),)
    assert read_and_judge([written(tmp_path, "cdd $HOME", "cd /home/user", said)], 100)[1] == []
