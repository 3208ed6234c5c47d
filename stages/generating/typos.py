"""A correct line with one typo in it: in a command, a subcommand, an option or a well-known path.

The typo is kept only if a reader would undo it one way: see `Candidates.means`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from random import Random
from typing import Any

from stages.common.grammar import Grammar, Node
from stages.common.lines import COMMAND, FLAGS, OPTION, SUBCOMMAND, VALUE, Word
from stages.generating.candidates import Candidates
from stages.generating.mistakes import Typist

_Place = tuple[Word, int, str]
_Find = Callable[[str, Sequence[Word]], list[Any]]
"""(family, words) -> the places that a mistake may take; what a place is only its slip knows."""
_Slip = Callable[[str, Any, Random], str | None]
"""(line, place) -> the mistyped line; None where a reader would not undo it that way."""
_COMPONENT = re.compile(r"[^/\\:=\"'\s]+")
_NO_PLAIN_NAME = re.compile(r"[/\\.~A-Z_]")
_PATH_START = re.compile(r"[./~]|[A-Za-z]:\\")
_THREE_LETTERS = re.compile(r"[A-Za-z]{3}")
_POSIX_PATH = re.compile(r"[\w./~-]+")


class Typos:
    """Makes typos in the lines of one shell."""

    def __init__(
        self,
        grammar: Grammar,
        typist: Typist,
        table: Mapping,
        commands: Candidates,
        components: Candidates,
        popularity: Callable[[tuple[str, ...], str], float],
    ) -> None:
        """`popularity` tells how often a word follows a path such as ("git", "commit")."""
        self._grammar = grammar
        self._typist = typist
        self._tie_ratio = table["tie_ratio"]
        self._protected = frozenset(table["protected"])
        self._all_letters = frozenset(table["all_letters"])
        self._aliases = {tool: frozenset(names) for tool, names in table["aliases"].items()}
        self._commands = commands
        self._components = components
        self._popularity = popularity
        self._places: dict[tuple[str, ...], Candidates] = {}
        self._structural: dict[str, tuple[_Find, _Slip]] = {
            "missing_space": (self._pairs, self._join),
            "shifted_space": (self._pairs, self._shift_space),
            "hyphen_for_space": (self._pairs, self._hyphenate),
            "space_for_hyphen": (self._hyphenated, partial(self._swap_hyphen, by=" ")),
            "missing_hyphen": (self._hyphenated, partial(self._swap_hyphen, by="")),
            "underscore_for_hyphen": (self._hyphenated, partial(self._swap_hyphen, by="_")),
            "split_dash": (self._dashed, self._split_dash),
            "wrong_slash": (self._slashed, self._turn_slashes),
        }

    def places(self, family: str, kind: str, words: Sequence[Word]) -> list[Any]:
        """Where such a mistake might be made in the line of these words; what a place is only `make` knows."""
        return self._finder(kind)(family, words)

    def make(self, family: str, kind: str, line: str, places: Sequence[Any], rng: Random) -> str | None:
        """`line` with one such mistake at one of its `places`; None where a reader would not undo it that way."""
        if not places:
            return None
        place = rng.choice(places)
        if kind in self._structural:
            return self._structural[kind][1](line, place, rng)
        word, offset, right = place
        if family == "path":
            return self._replace(line, word, kind, right, offset, self._components, rng)
        if family == "command":
            return self._replace(line, word, kind, right, offset, self._commands, rng)
        candidates = self._options(word.nodes) if family == "option" else self._subcommands(word.nodes)
        return self._replace(line, word, kind, right, offset, candidates, rng)

    def _finder(self, kind: str) -> _Find:
        return self._structural[kind][0] if kind in self._structural else self._typing_places

    def _typing_places(self, family: str, words: Sequence[Word]) -> list[_Place]:
        """Where a key may slip: the word, and the part of it that begins at an offset."""
        if family == "path":
            return self._path_places(words)
        role = {"command": COMMAND, "subcommand": SUBCOMMAND, "option": OPTION}[family]
        open_words = [word for word in words if word.role == role and word.nodes and self._is_open(word.text)]
        if family != "option":
            return [(word, 0, word.text) for word in open_words]
        places = []
        for word in open_words:
            spelling = word.text.partition(self._grammar.value_separator(word.text))[0]
            name = spelling.lstrip("-/")
            if len(name) >= 3 and self._is_open(spelling):
                places.append((word, len(spelling) - len(name), name))
        return places

    def _is_open(self, text: str) -> bool:
        return text not in self._protected and text.lower() not in self._protected

    def _replace(
        self, line: str, word: Word, kind: str, right: str, offset: int, candidates: Candidates, rng: Random
    ) -> str | None:
        """The line with `right`, which begins at `offset` in the word, mistyped."""
        if right not in candidates:
            return None
        wrong = self._typist.mistype(right, kind, rng)
        if wrong is None or not wrong[0].isalnum() or not candidates.means(wrong, right, self._tie_ratio):
            return None
        if right.lower() in self._all_letters and not _is_of_its_letters(wrong.lower(), right.lower()):
            return None
        if word.role == SUBCOMMAND and wrong in self._aliases.get(word.tool, ()):
            return None
        if word.role == OPTION and right.lower().startswith(wrong.lower()):
            return None  # many tools take the beginning of an option for the option
        start = word.start + offset
        return line[:start] + wrong + line[start + len(right) :]

    def _subcommands(self, nodes: tuple[Node, ...]) -> Candidates:
        path = tuple(node.name for node in nodes)
        key = (*path, "s")
        if key not in self._places:
            weights = {name: self._popularity(path, name) for name in nodes[-1].subcommands}
            self._places[key] = Candidates.of(weights, fold=self._grammar.fold)
        return self._places[key]

    def _options(self, nodes: tuple[Node, ...]) -> Candidates:
        """The bare names (no dashes, no slash) of the options that may stand after these nodes."""
        path = tuple(node.name for node in nodes)
        key = (*path, "o")
        if key not in self._places:
            weights: dict[str, float] = {}
            for node in nodes:
                for spelling in node.options:
                    name = spelling.lstrip("-/")
                    weights[name] = max(weights.get(name, 0), self._popularity(path, spelling))
            self._places[key] = Candidates.of(weights, fold=self._grammar.fold)
        return self._places[key]

    def _path_places(self, words: Sequence[Word]) -> list[_Place]:
        """The well-known parts of paths."""
        places = []
        for word in words:
            if word.role != VALUE or word.text[:1] in "\"'" or "://" in word.text:
                continue
            if not _NO_PLAIN_NAME.search(word.text):
                continue  # a bare word may be any name
            for match in _COMPONENT.finditer(word.text):
                for right, offset in self._known_parts(match.group()):
                    places.append((word, match.start() + offset, right))
        return places

    def _known_parts(self, component: str) -> list[tuple[str, int]]:
        """The well-known names in a path component: all of it, or its ending after the last dots."""
        if component in self._components:
            return [(component, 0)]
        stem, dot, ending = component.rpartition(".")
        if dot and stem and "." + ending in self._components:
            return [("." + ending, len(stem))]
        return []

    def _pairs(self, family: str, words: Sequence[Word]) -> list[tuple[Word, Word]]:
        """Neighbouring words of which a slip of the space bar would be undone by any reader."""
        roles = {
            "command": ((COMMAND, (FLAGS, OPTION, VALUE)),),
            "subcommand": ((COMMAND, (SUBCOMMAND,)), (SUBCOMMAND, (SUBCOMMAND,))),
            "option": ((SUBCOMMAND, (FLAGS, OPTION)), (COMMAND, (OPTION,))),
            "path": ((COMMAND, (VALUE,)),),
        }[family]
        return [
            (first, second)
            for first, second in pairwise(words)
            if first.nodes
            and any(first.role == role and second.role in others for role, others in roles)
            and self._is_open(first.text)
            and self._is_open(second.text)
            and self._all_letters.isdisjoint({first.text.lower(), second.text.lower()})
        ]

    def _join(self, line: str, pair: tuple[Word, Word], rng: Random) -> str | None:
        first, second = pair
        if second.role == VALUE and not _PATH_START.match(second.text):
            return None
        if self._grammar.shell == "cmd" and second.text[0] in "/.\\":
            return None  # `dir/s` and `cd..` are valid there
        if self._grammar.shell == "powershell" and second.text.startswith(("..", "\\")):
            return None
        joined = first.text + second.text
        if joined in self._commands:
            return None
        return line[: first.end] + line[second.start :]

    def _shift_space(self, line: str, pair: tuple[Word, Word], rng: Random) -> str | None:
        first, second = pair
        if not first.text.isalpha() or not _THREE_LETTERS.match(second.text) or len(first.text) < 2:
            return None
        if rng.random() < 0.75:
            left, right = first.text[:-1], first.text[-1] + second.text
        else:
            left, right = first.text + second.text[0], second.text[1:]
        if left in self._commands or (first.role == SUBCOMMAND and left in self._subcommands(first.nodes)):
            return None
        return line[: first.start] + left + " " + right + line[second.end :]

    def _hyphenate(self, line: str, pair: tuple[Word, Word], rng: Random) -> str | None:
        first, second = pair
        if f"{first.text}-{second.text}" in self._commands:
            return None
        return line[: first.end] + "-" + line[second.start :]

    def _hyphenated(self, family: str, words: Sequence[Word]) -> list[Word]:
        role = {"command": COMMAND, "option": OPTION}[family]
        return [
            word
            for word in words
            if word.role == role
            and word.nodes
            and self._is_open(word.text)
            and "-" in word.text.strip("-").split("=")[0]
        ]

    def _swap_hyphen(self, line: str, word: Word, rng: Random, by: str) -> str | None:
        name, equals, value = word.text.partition("=")
        dashes = name[: len(name) - len(name.lstrip("-"))]
        bare = name[len(dashes) :]
        candidates = self._commands if word.role == COMMAND else self._options(word.nodes)
        wrong = by.join(bare.split("-", 1))
        first, _, second = wrong.partition(" ")
        if (
            bare not in candidates
            or wrong in candidates
            or (word.role == COMMAND and self._is_call(first, second))
        ):
            return None
        return line[: word.start] + dashes + wrong + equals + value + line[word.end :]

    def _is_call(self, command: str, subcommand: str) -> bool:
        """Whether `docker compose` and its like are right as they stand."""
        node = self._grammar.command(command)
        return node is not None and node.subcommand(subcommand, fold=self._grammar.fold) is not None

    def _dashed(self, family: str, words: Sequence[Word]) -> list[Word]:
        return [
            word
            for word in words
            if word.role in (OPTION, FLAGS) and word.nodes and self._is_open(word.text) and word.text.strip("-/")
        ]

    @staticmethod
    def _split_dash(line: str, word: Word, rng: Random) -> str:
        """A blank after the dash or the slash of an option: `git commit - m "x"`, `tar - xzf a.tar.gz`."""
        at = word.start + len(word.text) - len(word.text.lstrip("-/"))
        return line[:at] + " " + line[at:]

    def _slashed(self, family: str, words: Sequence[Word]) -> list[Word]:
        """POSIX paths of which a component is well known."""
        return [
            word
            for word in words
            if word.role == VALUE
            and "/" in word.text
            and _POSIX_PATH.fullmatch(word.text)
            and any(part in self._components for part in word.text.split("/"))
        ]

    @staticmethod
    def _turn_slashes(line: str, word: Word, rng: Random) -> str:
        return line[: word.start] + word.text.replace("/", "\\") + line[word.end :]


def _is_of_its_letters(wrong: str, right: str) -> bool:
    """Whether `wrong` has all letters of `right` and no other ones: `mr` and `rmm` of `rm`, not `rn` and `r4m`."""
    return not Counter(right) - Counter(wrong) and set(wrong) <= set(right)
