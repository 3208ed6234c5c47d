"""Answers run what exists: a command or an option in no grammar is found, and too many of them are refused."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from stages.common.grammar import Grammar
from stages.validating.known import check_known, grammars_by_system, look_up, unknown_words
from stages.validating.limits import limits
from stages.validating.rows import Row


@pytest.fixture(scope="module")
def grammars() -> Mapping[str, Grammar]:
    return grammars_by_system()


def row(line: int, answer: str, family: str = "option", shell: str = "bash") -> Row:
    return Row(Path("x.jsonl"), line, "{}", {"family": family}, shell, "typed", answer)


@pytest.mark.parametrize(
    ("system", "line", "unknown"),
    [
        ("posix", "git push --force-with-lease origin main", []),
        ("posix", "git push --froce", ["git --froce"]),
        ("posix", "gti push", ["gti"]),
        ("posix", "git psuh origin", ["git psuh"]),
        ("posix", "git -C repo status", []),
        ("posix", "docker container lss", ["docker lss"]),
        ("posix", "cd psuh", []),
        ("posix", "tar -xzf a.tar.gz", []),
        ("posix", "tar -xz9! a.tar.gz", ["tar -xz9!"]),
        ("posix", "ls -la | gerp x && sudo aptt install y", ["gerp", "aptt"]),
        ("posix", "for i in 1 2; do echo $i; done", []),
        ("posix", "npx eslint --fix src", []),
        ("posix", "HTTP_PROXY=x ./run.sh --whatever", []),
        ("powershell", "get-childitem -recurse | Select-Object -First 3", []),
        ("powershell", "Get-ChildItem -Recrse", ["Get-ChildItem -Recrse"]),
        ("cmd", "DIR /B /s", []),
        ("cmd", "dri /b", ["dri"]),
    ],
)
def test_commands_and_options_are_looked_up(
    grammars: Mapping[str, Grammar], system: str, line: str, unknown: list[str]
) -> None:
    assert list(unknown_words(line, system, grammars[system])) == unknown


def test_a_few_unknown_words_are_listed_and_more_are_refused(grammars: Mapping[str, Grammar]) -> None:
    good = [row(number, "git push") for number in range(399)]
    few = look_up([*good, row(400, "gti push")], grammars, seed=1)
    assert (few.answers, few.known_share, few.words) == (400, 1 - 1 / 400, {"gti": 1})
    assert check_known(few) == []

    many = look_up([*good, *(row(400 + number, "gti push") for number in range(3))], grammars, seed=1)
    assert many.known_share < limits().known_share
    assert {(found.line, found.rule) for found in check_known(many)} == {(n, "grammar") for n in (400, 401, 402)}
    assert "gti" in check_known(many)[0].message


def test_lines_that_stay_as_they_are_may_run_what_nobody_knows(grammars: Mapping[str, Grammar]) -> None:
    looked = look_up([row(1, "./ours deploy"), row(2, "ourtool deploy", family="correct")], grammars, seed=1)
    assert (looked.answers, looked.unknown) == (1, [])
