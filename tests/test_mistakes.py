"""Typing mistakes: what each operator does to a word, and which typos can be undone."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest
import yaml
from rapidfuzz.distance import OSA

from stages.generating.candidates import Candidates
from stages.generating.mistakes import SINGLE, TWO_OPERATIONS, Typist

TABLE = yaml.safe_load(Path("data/mistakes.yaml").read_text(encoding="utf-8"))
TYPIST = Typist.from_table(TABLE)


def typos(word: str, kind: str, count: int = 300) -> list[str]:
    found = (TYPIST.mistype(word, kind, Random(f"{word}:{kind}:{number}")) for number in range(count))
    return [typo for typo in found if typo is not None]


@pytest.mark.parametrize("kind", SINGLE)
def test_a_single_operator_is_one_edit(kind):
    found = typos("checkout", kind)
    assert found
    assert {OSA.distance(typo, "checkout") for typo in found} == {1}


def test_two_operations_are_two_edits():
    assert {OSA.distance(typo, "checkout") for typo in typos("checkout", TWO_OPERATIONS)} == {2}


def test_of_two_operations_one_leaves_every_letter_there():
    lost = {(Counter("checkout") - Counter(typo)).total() for typo in typos("checkout", TWO_OPERATIONS)}
    assert max(lost) == 1


def test_no_typo_is_a_word_that_nobody_wants_to_read():
    """A slip of one letter would make it of the option `--count`."""
    assert TYPIST.unwanted
    assert not [typo for typo in typos("count", "omission", 2000) if typo.startswith(TYPIST.unwanted)]


@pytest.mark.parametrize(
    ("kind", "change"), [("omission", -1), ("doubling", 1), ("insertion_adjacent", 1), ("transposition", 0)]
)
def test_the_length_changes_as_the_operator_says(kind, change):
    assert {len(typo) - len("status") for typo in typos("status", kind)} == {change}


def test_a_transposition_keeps_the_letters():
    assert {"".join(sorted(typo)) for typo in typos("push", "transposition")} == {"hpsu"}


def test_an_adjacent_key_is_a_neighbour_and_another_key_is_not():
    neighbours = TABLE["neighbours"]["g"] + TABLE["digits"].get("g", "")
    assert set(typos("g", "substitution_adjacent")) <= set(neighbours)
    assert not {typo[0] for typo in typos("grep", "substitution_other") if typo[1:] == "rep"} & set(neighbours)


def test_neighbourhood_on_the_keyboard_is_mutual():
    letters = {key: near for key, near in TABLE["neighbours"].items() if key.isalpha()}
    assert [(a, b) for a, near in letters.items() for b in near if b in letters and a not in letters[b]] == []


def test_the_first_letter_is_not_protected():
    found = typos("docker", "substitution_adjacent")
    assert 0.05 < sum(typo[0] != "d" for typo in found) / len(found) < 0.35


def test_capitals_stay_where_they_were():
    assert "Egt" in set(typos("Get", "transposition"))


def test_a_word_of_two_letters_gets_no_mistake_that_nobody_could_undo():
    assert typos("ls", "omission") == []
    assert typos("ls", TWO_OPERATIONS) == []
    assert typos("ls", "transposition")


def test_the_same_random_numbers_give_the_same_typo():
    assert TYPIST.mistype("commit", "omission", Random("7")) == TYPIST.mistype("commit", "omission", Random("7"))


def test_the_operators_have_the_measured_order_of_frequency():
    weights = Counter({kind: TABLE["weights"][kind] for kind in SINGLE})
    assert [kind for kind, _ in weights.most_common(3)] == ["transposition", "omission", "substitution_adjacent"]


SUBCOMMANDS = Candidates.of(
    {"push": 50, "pull": 40, "prune": 1, "rebase": 5, "stash": 5, "status": 40}, fold=False
)


def test_a_typo_nearest_to_one_word_means_that_word():
    assert SUBCOMMANDS.means("psuh", "push", 4)


def test_a_typo_that_is_a_word_itself_means_that_word():
    assert not SUBCOMMANDS.means("stash", "status", 4)


def test_a_typo_nearer_to_another_word_is_dropped():
    assert not SUBCOMMANDS.means("stas", "status", 4)


def test_a_tie_is_decided_by_popularity():
    near = Candidates.of({"tar": 20, "car": 1, "cat": 20}, fold=False)
    assert near.means("ar", "tar", 4)
    assert not near.means("ar", "car", 4)
    assert not near.means("cay", "tar", 4)


def test_case_is_ignored_where_the_shell_ignores_it():
    cmdlets = Candidates.of({"Get-Item": 5, "Set-Item": 5}, fold=True)
    assert not cmdlets.means("get-item", "Get-Item", 4)
    assert cmdlets.means("get-itme", "Get-Item", 4)


USUAL = [
    (word, kind, typo)
    for word, kinds in TABLE["usual"]["words"].items()
    for kind, forms in kinds.items()
    for typo in forms
]


@pytest.mark.parametrize(("word", "kind", "typo"), USUAL)
def test_a_usual_typo_is_one_that_its_kind_of_mistake_makes(word: str, kind: str, typo: str) -> None:
    rare = Typist.from_table({**TABLE, "usual": {**TABLE["usual"], "share": 0.0}})
    assert typo in {rare.mistype(word, kind, Random(number)) for number in range(2000)}


def test_a_usual_typo_comes_oftener_than_any_other_of_its_kind() -> None:
    counts = Counter(typos("docker", "transposition", 2000))
    usual = TABLE["usual"]["words"]["docker"]["transposition"]
    assert {typo for typo, _ in counts.most_common(len(usual))} == set(usual)
    assert len(counts) > len(usual)
