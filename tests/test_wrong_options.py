"""Wrong options and typos that a reader would not call one are not made."""

from functools import cache
from random import Random

import pytest

from stages.common.grammar import build_grammars
from stages.common.lines import annotate
from stages.generating.candidates import Candidates
from stages.generating.mistakes import Typist
from stages.generating.tables import read_tables
from stages.generating.typos import Typos
from stages.generating.wrong_options import WrongOptions, synonym_table

TABLES = read_tables()
GRAMMARS = build_grammars(("bash", "cmd"), TABLES.grammars)


@cache
def of_shell(shell: str) -> WrongOptions:
    """One for all lines, as in a run."""
    grammar, table = GRAMMARS[shell], TABLES.mistakes
    return WrongOptions(
        grammar,
        synonym_table(TABLES, grammar),
        table["real_flags"],
        frozenset(table["protected"]),
        frozenset(table["only_slashes"]),
    )


def made(kind: str, line: str, shell: str = "bash") -> set[str]:
    """All that many draws of a wrong option make of a line."""
    options, words = of_shell(shell), annotate(line, GRAMMARS[shell])
    drawn = [options.make(kind, line, words, Random(seed)) for seed in range(40)]
    return {wrong for wrong in drawn if wrong is not None}


@pytest.mark.parametrize(
    ("kind", "shell", "line", "typed"),
    [
        ("wrong_case", "bash", "git merge --no-ff dev", set()),  # nobody shifts one long word
        ("wrong_case", "bash", "tsc --noEmit", {"tsc --noemit"}),
        ("two_dashes", "bash", "ls -la", {"ls --la"}),
        ("two_dashes", "bash", "cat -A notes.txt", set()),  # nobody shifts after two dashes
        (
            "one_dash",
            "bash",
            "javac --class-path lib Main.java",
            set(),
        ),  # which has options of one dash and a word
        ("one_dash", "bash", "git commit --amend", {"git commit -amend"}),
        ("synonym", "bash", "git merge --abort", {"git merge --cancel"}),  # not everything that means to end
        ("other_tool", "cmd", "dir /s", {"dir -s"}),
        ("other_tool", "cmd", "tasklist /svc", set()),  # which takes a dash too
    ],
)
def test_a_wrong_option_is_one_that_people_type_and_that_does_not_work(kind, shell, line, typed):
    assert made(kind, line, shell) == typed


def test_an_alias_is_no_typo_of_a_subcommand():
    typos = Typos(
        GRAMMARS["bash"],
        Typist.from_table(TABLES.mistakes),
        TABLES.mistakes,
        Candidates.of({"git": 1}, fold=False),
        Candidates.of({".git": 1}, fold=False),
        lambda path, word: 1.0,
    )
    line = "git log -n 5"
    places = typos.places("subcommand", "omission", annotate(line, GRAMMARS["bash"]))
    wrong = {typos.make("subcommand", "omission", line, places, Random(seed)) for seed in range(400)}
    assert "git og -n 5" in wrong
    assert "git lg -n 5" not in wrong
