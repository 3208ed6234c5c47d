"""Mistakes that are no typo of one word: a pasted prompt, a doubled word, another layout, broken operators.

All of them are tables in `data/slips.yaml`. A slip comes with the name of its group where the words of the mistake
carry values of the line, so that the same slip around another file name stays in the same split.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

from stages.common.grammar import Grammar, system_of
from stages.common.layouts import typed_on
from stages.common.lines import COMMAND, OPERATOR, SUBCOMMAND, VALUE, Word

_QUOTED = re.compile(r"""(?<![\w"'])(["'])([^"'`$]+)\1(?![\w"'])""")
_BARE_WORD = re.compile(r" [^-|&>;<]")
_LAYOUT_CHARS = 24
"""Whoever types on looks up in the end."""
_OF_STRUCTURE = ("doubled_word", "unclosed_quote", "word_order")
"""Slips that hang on what words there are in a line, not on its values."""


@dataclass(frozen=True)
class Slip:
    """A mistyped line, what the mistake is called in its group (None: the words that differ), what else fits."""

    typed: str
    group: str | None = None
    accept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rewrite:
    """A place of a correct line by pattern, and what is typed there."""

    right: re.Pattern[str]
    typed: str
    all: bool

    def apply(self, line: str, rng: Random) -> str | None:
        """The line with one place mistyped, or every one; None where there is none or nothing changes."""
        places = list(self.right.finditer(line))
        if not places:
            return None
        if self.all:
            wrong = self.right.sub(self.typed, line)
        else:
            place = rng.choice(places)
            wrong = line[: place.start()] + place.expand(self.typed) + line[place.end() :]
        return wrong if wrong != line else None


class Slips:
    """Makes the slips of one shell."""

    def __init__(self, table: Mapping[str, Any], grammar: Grammar) -> None:
        system = system_of(grammar.shell)
        self._grammar = grammar
        self._prompts: Sequence[str] = table["prompts"][grammar.shell]
        self._stray: Sequence[str] = table["stray"][system]
        self._may_double = frozenset(word.lower() for word in table["doubled"]["valid"])
        self._layouts = tuple(table["layouts"])
        self._rewrites = {
            kind: [
                Rewrite(re.compile(entry["right"]), entry["typed"], entry.get("all", False))
                for entry in entries
                if grammar.shell in entry["shells"]
            ]
            for kind, entries in table["rewrites"].items()
        }
        self._whole: dict[str, Callable[[str, Sequence[Word], Random], Slip | None]] = {
            "prompt_literal": self._prompt_literal,
            "doubled_word": self._doubled_word,
            "stray_character": self._stray_character,
            "unclosed_quote": self._unclosed_quote,
            "word_order": self._word_order,
            "layout_switch": self._layout_switch,
        }

    def knows(self, kind: str) -> bool:
        """Whether the kind is made here."""
        return kind in self._whole or kind in self._rewrites

    def has_place(self, kind: str, line: str, words: Sequence[Word]) -> bool:
        """Whether such a slip might be made in a line like this one, whose values may be others."""
        if kind in self._rewrites:
            return any(rewrite.right.search(line) for rewrite in self._rewrites[kind])
        return kind not in _OF_STRUCTURE or self.make(kind, line, words, Random(0)) is not None

    def make(self, kind: str, line: str, words: Sequence[Word], rng: Random) -> Slip | None:
        """`line`, whose words are `words`, with that slip; None where it offers no place for it."""
        if kind in self._whole:
            return self._whole[kind](line, words, rng)
        fitting = [(at, rewrite) for at, rewrite in enumerate(self._rewrites[kind]) if rewrite.right.search(line)]
        if not fitting:
            return None
        at, rewrite = rng.choice(fitting)
        wrong = rewrite.apply(line, rng)
        return Slip(wrong, f"{kind} {at}") if wrong is not None else None

    def _prompt_literal(self, line: str, words: Sequence[Word], rng: Random) -> Slip | None:
        return Slip(rng.choice(self._prompts) + line)

    def _doubled_word(self, line: str, words: Sequence[Word], rng: Random) -> Slip | None:
        places = [
            word
            for word in words
            if word.role in (COMMAND, SUBCOMMAND) and word.nodes and word.text.lower() not in self._may_double
        ]
        if not places:
            return None
        word = rng.choice(places)
        return Slip(f"{line[: word.end]} {line[word.start :]}")

    def _stray_character(self, line: str, words: Sequence[Word], rng: Random) -> Slip | None:
        key = rng.choice(self._stray)
        return Slip(line + key, f"stray {key}") if line[-1].isalnum() else None

    def _unclosed_quote(self, line: str, words: Sequence[Word], rng: Random) -> Slip | None:
        """One quote left out, or closed by the other kind."""
        found = list(_QUOTED.finditer(line))
        if len(found) != 1 or found[0][2] != found[0][2].strip():
            return None  # beside a quoted blank a missing quote would show as a double space
        [quoted] = found
        if " " in quoted[2] and _BARE_WORD.match(line, quoted.end()):
            return None  # where the quoted text ends, nobody could tell
        mark = quoted[1]
        ways = [(mark, ""), (mark, ""), ("", mark)]
        if mark == '"':  # of two different quotes the double one is the answer; the single one is as right
            ways += [('"', "'"), ("'", '"')]
        first, last = rng.choice(ways)

        def marked(first: str, last: str) -> str:
            return f"{line[: quoted.start()]}{first}{quoted[2]}{last}{line[quoted.end() :]}"

        either = first and last and self._grammar.shell != "cmd"  # which has no single quotes
        return Slip(marked(first, last), f"{first}…{last}", (marked("'", "'"),) if either else ())

    def _word_order(self, line: str, words: Sequence[Word], rng: Random) -> Slip | None:
        """Two neighbours swapped: command and subcommand, or subcommand and the value after it."""
        if any(word.role == OPERATOR for word in words):
            return None
        places = []
        for first, second in pairwise(words):
            roles = (first.role, second.role)
            if roles == (COMMAND, SUBCOMMAND):
                is_valid = self._grammar.command(second.text) is not None
            else:
                is_valid = roles != (SUBCOMMAND, VALUE) or first.nodes[-1].subcommand(second.text, fold=True)
            if not is_valid:
                places.append((first, second))
        if not places:
            return None
        first, second = rng.choice(places)
        wrong = f"{line[: first.start]}{second.text} {first.text}{line[second.end :]}"
        return Slip(wrong, f"order {first.role} {second.role}")

    def _layout_switch(self, line: str, words: Sequence[Word], rng: Random) -> Slip | None:
        layout = rng.choice(self._layouts)
        wrong = typed_on(layout, line) if len(line) <= _LAYOUT_CHARS else None
        return Slip(wrong, f"layout {layout}") if wrong is not None else None
