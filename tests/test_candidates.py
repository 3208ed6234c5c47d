"""Whether a typo can be undone one way: what else stands there, how near, how popular."""

import pytest

from stages.generating.candidates import Candidates


@pytest.mark.parametrize(
    ("rival", "typed", "is_clear"),
    [
        ("ls", "lss", False),  # as near, and shorter than what is typed
        ("lass", "lss", False),  # as near, and longer
        ("lsa", "lss", False),  # as near, and as long
        ("sl", "lss", True),  # farther away
        ("l", "lss", True),
    ],
)
def test_a_rival_as_near_and_as_popular_makes_a_typo_ambiguous_whatever_its_length(rival, typed, is_clear):
    assert Candidates.of({"less": 1, rival: 1}, fold=False).means(typed, "less", tie_ratio=4) is is_clear


def test_a_rival_that_nobody_types_takes_nothing_away():
    assert Candidates.of({"less": 100, "ls": 1}, fold=False).means("lss", "less", tie_ratio=4)
    assert not Candidates.of({"less": 100, "ls": 26}, fold=False).means("lss", "less", tie_ratio=4)


def test_nothing_nearer_may_stand_there_however_rare():
    assert Candidates.of({"status": 100}, fold=False).means("stats", "status", tie_ratio=4)
    assert not Candidates.of({"status": 100, "stas": 0.01}, fold=False).means("sta", "status", tie_ratio=4)
