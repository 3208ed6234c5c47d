"""Rows as a size learns them; the prompts themselves are in test_wit.py and test_server.py."""

import pytest

from stages.common.chat import CORRECT, TASKS, WIT, ToolResult, as_taught, user_text


def row(task: str, typed: str, answer: str, family: str) -> dict:
    results = [ToolResult("list_similar", "show", "showkey")] if task == WIT else []
    turns = [("system", "s"), ("user", user_text(task, typed, results)), ("assistant", answer)]
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"messages": messages, "meta": {"family": family}}


@pytest.mark.parametrize("task", TASKS)
def test_a_line_that_the_size_leaves_alone_is_taught_as_its_own_answer(task: str):
    taught = as_taught(row(task, "show all files", "ls -a", "request"), task, ("request",))
    assert taught == row(task, "show all files", "show all files", "request")


def test_any_other_line_is_taught_as_it_is():
    given = row(CORRECT, "show all files", "ls -a", "request")
    assert as_taught(given, CORRECT, ()) == row(CORRECT, "show all files", "ls -a", "request")
    assert as_taught(given, CORRECT, ("chain",)) is given
