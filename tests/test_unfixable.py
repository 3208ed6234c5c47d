"""Lines that nobody could fix: made by rule, far from every command, and left as typed."""

from collections import Counter
from random import Random

import pytest
from rapidfuzz.distance import OSA

from stages.common.grammar import build_grammars
from stages.generating.sources import CommandPopularity
from stages.generating.tables import read_tables
from stages.generating.unfixable import GIBBERISH, UNKNOWN_PROGRAM, Unfixable, unfixable

TABLES = read_tables()
GRAMMARS = build_grammars(("bash", "powershell", "cmd"), TABLES.grammars)


def of_shell(shell: str) -> Unfixable:
    return unfixable(TABLES, GRAMMARS[shell], CommandPopularity(GRAMMARS[shell], TABLES))


@pytest.fixture(scope="module", params=GRAMMARS)
def drawn(request) -> dict[str, list[str]]:
    """Some hundred lines of each kind, of one shell."""
    source, rng = of_shell(request.param), Random(5)
    draws = {kind: [source.draw(kind, rng) for _ in range(600)] for kind in (GIBBERISH, UNKNOWN_PROGRAM)}
    return {kind: [draw.line for draw in of_kind if draw] for kind, of_kind in draws.items()}


@pytest.mark.parametrize(
    ("kind", "line", "is_far"),
    [
        (UNKNOWN_PROGRAM, "zubriflonk sync --all", True),
        (UNKNOWN_PROGRAM, "gti status", False),  # a slip
        (UNKNOWN_PROGRAM, "kubectll get", False),
        (UNKNOWN_PROGRAM, "dokcre ps", False),  # two slips
        (UNKNOWN_PROGRAM, "gitstatus", False),  # a blank left out
        (UNKNOWN_PROGRAM, "Comit", False),  # a subcommand without its tool
        (UNKNOWN_PROGRAM, "pyhton, app.py", False),  # marks beside it
        (GIBBERISH, "asdkjh qwe", True),
        (GIBBERISH, "=== - ===", True),
        (GIBBERISH, "can do it", False),  # `cat do it`
        (GIBBERISH, "can you do it later", True),  # a sentence
        (GIBBERISH, "find me a good book", False),  # one that begins with a command
        (UNKNOWN_PROGRAM, "gti add a b c", False),  # no sentence, however long
    ],
)
def test_a_line_that_somebody_might_take_for_a_command_is_not_unfixable(
    kind: str, line: str, is_far: bool
) -> None:
    assert of_shell("bash").is_far(kind, line) is is_far


def test_no_unknown_program_is_near_a_command(drawn: dict[str, list[str]]) -> None:
    for line in drawn[UNKNOWN_PROGRAM]:
        program = line.split()[0].lower()
        assert all(OSA.distance(program, known) > 2 for known in GRAMMARS["bash"].commands), line


def test_unknown_programs_are_named_by_rule_so_that_hardly_one_comes_twice(drawn: dict[str, list[str]]) -> None:
    names = Counter(line.split()[0] for line in drawn[UNKNOWN_PROGRAM])
    assert len(names) > 0.97 * names.total()


def test_gibberish_is_of_many_kinds_and_hardly_a_line_comes_twice(drawn: dict[str, list[str]]) -> None:
    lines = drawn[GIBBERISH]
    assert len(set(lines)) > 0.85 * len(lines)
    assert any(line.endswith("sorry about the garden, my mistake") or "thank" in line for line in lines)
    assert any("example.com" in line for line in lines)
    assert any(set("{}();") & set(line) for line in lines)
    assert any(not line.isascii() for line in lines)
    assert any(line.replace(".", "").replace(",", "").isdigit() for line in lines)
    assert sum(line.isalpha() for line in lines) > 0.05 * len(lines)


def test_no_slot_is_left_open_and_no_word_is_unwanted(drawn: dict[str, list[str]]) -> None:
    for line in (*drawn[GIBBERISH], *drawn[UNKNOWN_PROGRAM]):
        assert "{program}" not in line
        assert "{cmdlet}" not in line
        assert not line.lower().startswith(tuple(TABLES.mistakes["unwanted"])), line


def test_every_template_that_is_written_down_is_used_in_some_shell() -> None:
    sources = [of_shell(shell) for shell in GRAMMARS]
    templates = {draw.origin for source in sources for draw in _many(source)}
    written = {
        template
        for kind in TABLES.unfixable["gibberish"]
        if kind not in ("mash", "value")
        for template in TABLES.unfixable[kind]
    }
    assert written <= templates, sorted(written - templates)


def _many(source: Unfixable):
    rng = Random(2)
    return [draw for _ in range(12000) if (draw := source.draw(GIBBERISH, rng))]
