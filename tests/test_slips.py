"""Slips of whole lines: each kind does to a line what it says, and to the other lines nothing."""

import re
from random import Random

import pytest

from stages.common.grammar import build_grammars
from stages.common.layouts import latin, typed_on
from stages.common.lines import annotate
from stages.generating.slips import Slips
from stages.generating.tables import read_tables

TABLES = read_tables()
GRAMMARS = build_grammars(("bash", "fish", "powershell", "cmd"), TABLES.grammars)
SLIPS = {shell: Slips(TABLES.slips, grammar) for shell, grammar in GRAMMARS.items()}


def made(kind: str, line: str, shell: str = "bash") -> set[str]:
    """All that many draws of a slip make of a line."""
    words = annotate(line, GRAMMARS[shell])
    slips = [SLIPS[shell].make(kind, line, words, Random(seed)) for seed in range(60)]
    return {slip.typed for slip in slips if slip is not None}


def test_a_prompt_is_pasted_before_the_line():
    assert "$ git status" in made("prompt_literal", "git status")
    assert "C:\\>dir" in made("prompt_literal", "dir", "cmd")
    assert all(typed.endswith("git status") for typed in made("prompt_literal", "git status"))


def test_a_command_or_subcommand_is_doubled_but_not_where_that_is_valid():
    assert made("doubled_word", "git push origin main") == {
        "git git push origin main",
        "git push push origin main",
    }
    assert made("doubled_word", "echo done") == set()


def test_a_stray_key_ends_the_line_only_after_a_letter_or_digit():
    assert all(re.fullmatch(r"git status\W{1,2}", typed) for typed in made("stray_character", "git status"))
    assert made("stray_character", "ls | sort >") == set()


@pytest.mark.parametrize(("shell", "accept"), [("fish", ("git commit -m 'wip'",)), ("cmd", ())])
def test_of_two_kinds_of_quotes_either_is_right_where_the_shell_has_both(shell, accept):
    line = 'git commit -m "wip"'
    slips = [
        SLIPS[shell].make("unclosed_quote", line, annotate(line, GRAMMARS[shell]), Random(seed))
        for seed in range(60)
    ]
    mixed = [slip.accept for slip in slips if {"'", '"'} <= set(slip.typed)]
    lost = [slip.accept for slip in slips if not {"'", '"'} <= set(slip.typed)]
    assert (set(mixed), set(lost)) == ({accept}, {()})


def test_one_quote_is_lost_or_of_the_other_kind():
    typed = made("unclosed_quote", 'git commit -m "add tests"')
    assert typed == {
        'git commit -m "add tests',
        'git commit -m add tests"',
        "git commit -m \"add tests'",
        "git commit -m 'add tests\"",
    }
    assert made("unclosed_quote", "grep -F 'ready to go' a.txt") == set()  # where it ends nobody could tell
    assert made("unclosed_quote", "grep 'ready' a.txt") == {"grep 'ready a.txt", "grep ready' a.txt"}
    assert made("unclosed_quote", "git commit") == set()
    assert made("unclosed_quote", "tr -s ' ' < photo.txt") == set()


def test_neighbours_change_places_where_that_is_no_other_command():
    assert made("word_order", "git push origin main") == {"push git origin main", "git origin push main"}
    assert made("word_order", "docker ps -a") == set()  # `ps` is a command itself
    assert made("word_order", "git push origin | cat") == set()


def test_a_line_typed_on_another_layout_comes_back_by_its_keys():
    typed = made("layout_switch", "git status")
    assert typed == {"пше ыефегы", "γιτ στατθσ"}
    assert {latin(line) for line in typed} == {"git status"}
    assert typed_on("greek", "wq") is None
    assert latin("git status") == "git status"


@pytest.mark.parametrize(
    ("kind", "shell", "right", "typed"),
    [
        ("operator", "bash", "make && ./app", "make & & ./app"),
        ("operator", "powershell", "ps | sort CPU", "ps | | sort CPU"),
        ("redirection", "bash", "make > log 2>&1", "make > log 2&>1"),
        ("redirection", "cmd", "del a.txt 2>nul", "del a.txt 2>null"),
        ("keyword", "bash", "for f in *; do echo $f; done", "for f in * do echo $f; done"),
        ("keyword", "fish", "for f in *; echo $f; end", "for f in *; echo $f; done"),
        ("bracket", "bash", "echo $(date)", "echo $(date"),
        ("bracket", "powershell", "ps | where { $_.CPU -gt 5 }", "ps | where { $.CPU -gt 5 }"),
        ("foreign_syntax", "fish", "set -gx EDITOR vim", "EDITOR=vim"),
        ("foreign_syntax", "powershell", "ps | where { $_.CPU -gt 5 }", "ps | where { $_.CPU > 5 }"),
        ("foreign_syntax", "cmd", "for %i in (*.txt) do type %i", "for %%i in (*.txt) do type %%i"),
    ],
)
def test_a_rewrite_puts_its_mistake_where_its_pattern_stands(kind: str, shell: str, right: str, typed: str):
    assert SLIPS[shell].has_place(kind, right, annotate(right, GRAMMARS[shell]))
    assert typed in made(kind, right, shell)
    assert made(kind, "pwd", shell) == set()


def test_the_same_slip_around_another_value_is_the_same_group():
    slips = [
        SLIPS["fish"].make("foreign_syntax", line, annotate(line, GRAMMARS["fish"]), Random(1))
        for line in ("set -gx EDITOR vim", "set -gx PAGER less")
    ]
    assert slips[0].group == slips[1].group is not None


def test_every_rewrite_finds_a_place_in_some_chained_line_of_each_of_its_shells():
    """A pattern that fits nothing is a mistake in the table."""
    from stages.generating.tables import chained_lines, everyday_lines

    unused = []
    for kind, entries in TABLES.slips["rewrites"].items():
        for entry in entries:
            for shell in entry["shells"]:
                everyday = [line for lines in everyday_lines(TABLES, shell).values() for line in lines]
                if not any(re.search(entry["right"], line) for line in [*chained_lines(TABLES, shell), *everyday]):
                    unused.append((shell, kind, entry["right"]))
    assert unused == []
