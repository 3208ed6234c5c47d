"""The data card: the shares that rows have, beside those that were asked for."""

from dataclasses import replace
from pathlib import Path

from stages.validating import card
from stages.validating.known import Looked
from stages.validating.rows import Row
from stages.validating.tally import Tally


def row(shell: str = "bash", kind: str = "omission", before: str = "gt a", family: str = "command") -> Row:
    meta = {"shell": shell, "kind": kind, "family": family, "source": "fig", "tool": "git", "group": before}
    return Row(Path("x.jsonl"), 1, "{}", meta, shell, before, "git a")


def test_a_share_stands_beside_the_one_asked_for_also_where_nobody_asked():
    header, lines = card.asked_and_found(
        Tally([row(), row("zsh"), row("zsh"), row("fish")]), "shell", {"bash": 0.5, "zsh": 0.5}
    )
    assert header == ["shell", "share", "asked"]
    assert lines == [["bash", 0.25, 0.5], ["zsh", 0.5, 0.5], ["fish", 0.25, 0.0]]


def test_the_mix_of_typing_mistakes_counts_only_those():
    rows = [row(), row(), row(kind="doubling"), row(kind="none")]
    assert card.typing_mix(Tally(rows), {"omission": 30, "doubling": 10})[1] == [
        ["omission", 2 / 3, 0.75],
        ["doubling", 1 / 3, 0.25],
    ]


def test_operators_are_counted_once_an_answer_and_not_in_quotes():
    answers = ["ls | wc -l | cat", "ls | sort > a.txt", "echo 'a | b'", "make && ls 2>&1"]
    tally = Tally([replace(row(), after=answer) for answer in answers])
    assert (tally.chained, tally.operators) == (3, {"|": 2, ">": 1, "&&": 1, "2>&1": 1})
    assert card.operators(tally, {"|": 0.6, "||": 0.1})[1][:2] == [["`\\|`", 2 / 3, 0.6], ["`\\|\\|`", 0.0, 0.1]]
    assert (tally + tally).chained == 6


def test_lengths_are_counted_in_bars_of_ten_characters_without_gaps():
    rows = [row(before="x" * length) for length in (3, 9, 25)]
    assert card.lengths(Tally(rows))[1] == [[0, 2], [10, 0], [20, 1]]


def test_samples_show_every_family_the_same_for_the_same_seed():
    rows = [row(before=f"gt {number}", family=family) for family in ("path", "command") for number in range(9)]
    shown = card.samples(rows, 1)[1]
    assert [line[0] for line in shown] == ["command"] * card.SAMPLES + ["path"] * card.SAMPLES
    assert shown == card.samples(rows, 1)[1] != card.samples(rows, 2)[1]


def test_the_card_is_markdown_in_which_a_pipe_breaks_no_table():
    rows = [row(before="ls | wc")]
    text = card.card({"train": rows}, {"train": Tally(rows)}, 7, {"Shells": (["shell", "share"], [["bash", 1.0]])})
    assert "| bash | 100.00 % |" in text
    assert r"`ls \| wc`" in text
    assert text.index("## Splits") < text.index("## Shells") < text.index("## Samples")


def test_two_tallies_add_up_to_that_of_both():
    one, two = [row(), row("zsh", before="gt bb")], [row("zsh", kind="doubling", before="gt c")]
    both, whole = Tally(one) + Tally(two), Tally([*one, *two])
    assert (
        (both.rows, both.groups, both.lengths) == (whole.rows, whole.groups, whole.lengths) == (3, 3, {4: 2, 5: 1})
    )
    assert both.of("shell") == whole.of("shell") == {"bash": 1, "zsh": 2}


def test_what_no_grammar_knows_is_listed_with_its_share_of_the_answers_looked_up():
    looked = Looked(answers=4, unknown=[(row(), "gti"), (row(), "gti"), (row(), "git --x")])
    assert card.in_no_grammar(looked)[1] == [["`gti`", 0.5], ["`git --x`", 0.25]]
