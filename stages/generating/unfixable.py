"""Lines that nobody could fix, so that their answer is what was typed: `asdkjh qwe`, `frobctl sync --all`.

They are made by rule out of `data/unfixable.yaml`, so that a model learns to recognize them, not to recite.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any

from rapidfuzz import process
from rapidfuzz.distance import OSA

from stages.common.grammar import Grammar, system_of
from stages.generating.commands import Draw, Slots, Weighted
from stages.generating.sources import CommandPopularity
from stages.generating.tables import Tables

GIBBERISH, UNKNOWN_PROGRAM = "gibberish", "unknown_program"
_FIRST_WORD = re.compile(r"[^\W_](?:.*[^\W_])?")
_COMMAND_LETTERS = 3
"""A command of fewer letters begins too many words to be read as one with a blank left out."""
_MASHED = (3, 10)
"""Keys struck in one go."""


class Unfixable:
    """Draws the unfixable lines of one shell."""

    def __init__(self, tables: Tables, shell: str, commands: Iterable[str]) -> None:
        """`commands`: all that a reader might take the first word for."""
        self._table: Mapping[str, Any] = tables.unfixable
        self._commands = tuple(sorted({command.casefold() for command in commands}))
        self._names = frozenset(self._commands)
        sampling = tables.sampling
        self._slots = Slots(
            {
                **tables.slots,
                **{name: sampling[name] for name in ("name", "word", "capital")},
                **self._table["words"],
                "letter": self._table[UNKNOWN_PROGRAM]["letter"],
            }
        )
        self._unwanted = re.compile("|".join(tables.mistakes["unwanted"]))
        self._programs: Sequence[str] = self._table[UNKNOWN_PROGRAM]["lines"][system_of(shell)]
        self._of_gibberish = Weighted(self._table["gibberish"])
        self._by_rule: Mapping[str, Callable[[Random], str | None]] = {"mash": self._mash, "value": self._value}

    def draw(self, kind: str, rng: Random) -> Draw | None:
        """A line of that kind; None where a reader might take its first word for a command."""
        draw = self._unknown_program(rng) if kind == UNKNOWN_PROGRAM else self._gibberish(rng)
        return draw if draw is not None and self.is_far(kind, draw.line) else None

    def is_far(self, kind: str, line: str) -> bool:
        """Whether the first word is no command, mistyped or not, nor begins with one: `gti status` is near."""
        words = line.casefold().split()
        found = _FIRST_WORD.search(words[0])
        if found is None:
            return True
        first = found.group()
        if kind == GIBBERISH and len(words) >= self._table["sentence_words"]:
            return first not in self._names
        if any(first[:length] in self._names for length in range(_COMMAND_LETTERS, len(first))):
            return False
        edits = self._table["edits"]
        return process.extractOne(first, self._commands, scorer=OSA.distance, score_cutoff=edits) is None

    def _gibberish(self, rng: Random) -> Draw | None:
        """A line by rule, which is its own template, or one of a template."""
        kind = self._of_gibberish.draw(rng)
        if kind in self._by_rule:
            line = self._by_rule[kind](rng)
            return None if line is None else Draw(line, line)
        template = rng.choice(self._table[kind])
        return Draw(self._slots.fill(template, rng), template)

    def _unknown_program(self, rng: Random) -> Draw | None:
        template = rng.choice(self._programs)
        program = self._program(rng)
        if self._unwanted.search(program):
            return None
        verb = rng.choice(self._table[UNKNOWN_PROGRAM]["verbs"])
        named = template.replace("{program}", program).replace("{cmdlet}", f"{verb}-{program.title()}")
        return Draw(self._slots.fill(named, rng), template)

    def _program(self, rng: Random) -> str:
        """A name that can be pronounced, in lower case: `zubrictl`, `lanternforge`."""
        parts = self._table[UNKNOWN_PROGRAM]
        if rng.random() < parts["stem_share"]:
            name = "".join(rng.sample(parts["stems"], 2))
        else:
            syllables = rng.choice(parts["syllables"])
            name = "".join(rng.choice(parts[part]) for part in ("onset", "vowel", "coda") * syllables)
        return name + rng.choice(parts["ending"])

    def _mash(self, rng: Random) -> str | None:
        """Up to three words of keys struck at random, at times with a mark or a number."""
        words = [self._struck(rng) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
        extra = rng.random()
        if extra < 0.15:
            words.append(rng.choice(self._table["mash"]["numbers"]))
        elif extra < 0.35:
            at = rng.randrange(len(words))
            words[at] += rng.choice(self._table["mash"]["marks"]) + self._struck(rng)[: rng.randint(0, 3)]
        line = " ".join(words)
        return None if self._unwanted.search(line) else line

    def _struck(self, rng: Random) -> str:
        """Keys struck in one go: along a row, the same few again, or by one hand after the other."""
        keys, count = self._table["mash"], rng.randint(*_MASHED)
        way = rng.randrange(4)
        if way == 0:
            row = rng.choice(keys["rows"])[:: rng.choice((1, -1))]
            start = rng.randrange(len(row) - _MASHED[0])
            return row[start : start + count]
        if way == 1:
            row = rng.choice(keys["rows"])
            start, length = rng.randrange(len(row) - _MASHED[0]), rng.choice((2, 3, 4))
            return (row[start : start + length] * count)[: max(count, 2 * length)]
        if way == 2:
            return "".join(rng.choice(rng.choice(keys[hand])) for hand in ("left", "right") * (count // 2 + 1))
        return "".join(rng.choices(rng.choice(keys["rows"][:2]), k=count))

    def _value(self, rng: Random) -> str:
        """A number, a date, a hash by itself."""
        return "".join(self._character(letter, rng) for letter in rng.choice(self._table["value"]))

    @staticmethod
    def _character(letter: str, rng: Random) -> str:
        """What a letter of a pattern means: `9` a digit, `X` a hexadecimal digit, `A` one that is a letter."""
        choices = {"9": "0123456789", "X": "0123456789abcdef", "A": "abcdef"}
        return rng.choice(choices[letter]) if letter in choices else letter


def unfixable(tables: Tables, grammar: Grammar, popularity: CommandPopularity) -> Unfixable:
    """Those of one shell: far from all commands there, and from the subcommands of the popular ones."""
    subcommands = (
        name for shares in popularity.shares.values() for name in shares if len(name) > 1
    )  # not `npm i`
    return Unfixable(tables, grammar.shell, {*grammar.commands, *popularity.of_commands(), *subcommands})
