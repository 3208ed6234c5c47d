"""Typing mistakes in a single word: the operators, on a QWERTY keyboard.

Every operator takes a word and a `random.Random` and returns the mistyped word, or None where the word
offers no place for it. Which operator, how often, and the keyboard itself are in `data/mistakes.yaml`.
The classes are those of Damerau (1964): one insertion, deletion, substitution or transposition,
adjacent keys told apart from others, and pairs of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from rapidfuzz.distance import OSA

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Keyboard:
    """Neighbouring keys of a lower-case letter or mark, and how often a digit is among them."""

    neighbours: Mapping[str, str]
    digits: Mapping[str, str]
    digit_share: float
    position_power: float

    def neighbour(self, key: str, rng: Random) -> str | None:
        """A key beside `key`, in the case of `key`; None where it has no listed neighbour."""
        lower = key.lower()
        near = self.neighbours.get(lower, "")
        digits = self.digits.get(lower, "")
        if digits and rng.random() < self.digit_share:
            return rng.choice(digits)
        if not near:
            return None
        found = rng.choice(near)
        return found.upper() if key.isupper() else found

    def position(self, places: int, rng: Random) -> int:
        """An index below `places`, drawn slightly right of the middle (first place not protected)."""
        return min(places - 1, int(places * rng.random() ** self.position_power))


def transposition(word: str, keyboard: Keyboard, rng: Random) -> str | None:
    """Two neighbouring characters in the wrong order; the pattern of capitals stays where it was."""
    if len(word) < 2:
        return None
    at = keyboard.position(len(word) - 1, rng)
    first, second = word[at], word[at + 1]
    if first.lower() == second.lower():
        return None
    if first.isupper() and second.islower():
        first, second = first.lower(), second.upper()
    return word[:at] + second + first + word[at + 2 :]


def omission(word: str, keyboard: Keyboard, rng: Random) -> str | None:
    """One character left out."""
    if len(word) < 2:
        return None
    at = keyboard.position(len(word), rng)
    return word[:at] + word[at + 1 :]


def substitution_adjacent(word: str, keyboard: Keyboard, rng: Random) -> str | None:
    """A neighbouring key hit instead."""
    at = keyboard.position(len(word), rng)
    key = keyboard.neighbour(word[at], rng)
    return None if key is None else word[:at] + key + word[at + 1 :]


def insertion_adjacent(word: str, keyboard: Keyboard, rng: Random) -> str | None:
    """A neighbouring key hit together with the right one, before or after it."""
    at = keyboard.position(len(word), rng)
    key = keyboard.neighbour(word[at], rng)
    if key is None:
        return None
    at += rng.random() < 0.5
    return word[:at] + key.lower() + word[at:]


def doubling(word: str, keyboard: Keyboard, rng: Random) -> str | None:
    """One key hit twice."""
    at = keyboard.position(len(word), rng)
    return word[: at + 1] + word[at].lower() + word[at + 1 :]


def substitution_other(word: str, keyboard: Keyboard, rng: Random) -> str | None:
    """A letter that is no neighbour instead of the right one."""
    at = keyboard.position(len(word), rng)
    letter = word[at]
    if not letter.isalpha():
        return None
    lower = letter.lower()
    far = [key for key in LETTERS if key != lower and key not in keyboard.neighbours.get(lower, "")]
    key = rng.choice(far)
    return word[:at] + (key.upper() if letter.isupper() else key) + word[at + 1 :]


def insertion_other(word: str, keyboard: Keyboard, rng: Random) -> str | None:
    """A letter that is neither a neighbour nor a double of those beside it, in between or at the end."""
    at = keyboard.position(len(word) + 1, rng)
    beside = (word[at - 1 : at] + word[at : at + 1]).lower()
    near = beside + "".join(keyboard.neighbours.get(key, "") for key in beside)
    far = [key for key in LETTERS if key not in near]
    return word[:at] + rng.choice(far) + word[at:]


Operator = Callable[[str, Keyboard, Random], str | None]
SINGLE: dict[str, Operator] = {
    operator.__name__: operator
    for operator in (
        transposition,
        omission,
        substitution_adjacent,
        insertion_adjacent,
        doubling,
        substitution_other,
        insertion_other,
    )
}
TWO_OPERATIONS = "two_operations"


@dataclass(frozen=True)
class Typist:
    """Mistypes words: the keyboard, the shares of the single operators, what short words allow."""

    keyboard: Keyboard
    weights: Mapping[str, float]
    short_letters: int
    easy_when_short: frozenset[str]
    keep_other: float
    two_operations_min: int
    two_operations_keep: frozenset[str]
    """Operators after which every letter of the word is still there: of two, one is of these."""
    unwanted: tuple[str, ...]
    """Beginnings of words that no mistake may make."""
    usual: Mapping[str, Mapping[str, Sequence[str]]]
    """Word -> kind of mistake -> what people type time and again,"""
    usual_share: float
    """and in how many of the cases."""

    @classmethod
    def from_table(cls, table: Mapping) -> Typist:
        """From the content of `data/mistakes.yaml`."""
        short = table["short_word"]
        keyboard = Keyboard(
            table["neighbours"], table["digits"], table["digit_neighbour"], table["position_power"]
        )
        return cls(
            keyboard=keyboard,
            weights={name: table["weights"][name] for name in SINGLE},
            short_letters=short["letters"],
            easy_when_short=frozenset(short["easy"]),
            keep_other=short["keep_other"],
            two_operations_min=table["two_operations_min_letters"],
            two_operations_keep=frozenset(table["two_operations_keep"]),
            unwanted=tuple(table["unwanted"]),
            usual=table["usual"]["words"],
            usual_share=table["usual"]["share"],
        )

    def mistype(self, word: str, kind: str, rng: Random) -> str | None:
        """`word` with the mistake `kind` in it; None where that mistake cannot be made or undone there.

        The optimal-string-alignment distance of the result is 1, or 2 for `two_operations`.
        """
        usual = self.usual.get(word, {}).get(kind)
        if usual and rng.random() < self.usual_share:
            return rng.choice(usual)
        wrong = self._mistype_twice(word, rng) if kind == TWO_OPERATIONS else self._mistype_once(word, kind, rng)
        return None if wrong is None or wrong.lower().startswith(self.unwanted) else wrong

    def _mistype_once(self, word: str, kind: str, rng: Random) -> str | None:
        is_hard = len(word) <= self.short_letters and kind not in self.easy_when_short
        if is_hard and (len(word) < 3 or rng.random() >= self.keep_other):
            return None
        wrong = SINGLE[kind](word, self.keyboard, rng)
        if wrong is None or OSA.distance(wrong, word) > 2 or wrong.lower() == word.lower():
            return None
        return wrong

    def _mistype_twice(self, word: str, rng: Random) -> str | None:
        if len(word) < self.two_operations_min:
            return None
        kinds = rng.choices(list(self.weights), weights=list(self.weights.values()), k=2)
        if self.two_operations_keep.isdisjoint(kinds):
            return None
        once = SINGLE[kinds[0]](word, self.keyboard, rng)
        twice = SINGLE[kinds[1]](once, self.keyboard, rng) if once else None
        if twice is None or OSA.distance(twice, word) != 2:
            return None
        return twice
