"""A correct line with one typo in it: in a command, a subcommand, an option or a well-known path.

The typo is kept only if a reader would undo it one way: see `Candidates.means`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from random import Random

from stages.generating.candidates import Candidates
from stages.generating.grammar import Grammar, Node
from stages.generating.lines import COMMAND, FLAGS, OPTION, SUBCOMMAND, VALUE, Word
from stages.generating.mistakes import Typist

_COMPONENT = re.compile(r"[^/\\:=\"'\s]+")


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
        self._commands = commands
        self._components = components
        self._popularity = popularity
        self._places: dict[tuple[str, ...], Candidates] = {}
        self._structural = {
            "missing_space": self._missing_space,
            "shifted_space": self._shifted_space,
            "hyphen_for_space": self._hyphen_for_space,
            "space_for_hyphen": self._space_for_hyphen,
            "missing_hyphen": self._missing_hyphen,
            "underscore_for_hyphen": self._underscore_for_hyphen,
            "split_dash": self._split_dash,
            "wrong_slash": self._wrong_slash,
        }

    def make(self, family: str, kind: str, line: str, words: list[Word], rng: Random) -> str | None:
        """`line`, whose words are `words`, with one such mistake; None where it offers no fitting place."""
        if kind in self._structural:
            return self._structural[kind](family, line, words, rng)
        if family == "path":
            return self._path_typo(kind, line, words, rng)
        role = {"command": COMMAND, "subcommand": SUBCOMMAND, "option": OPTION}[family]
        places = [word for word in words if word.role == role and word.nodes and self._is_open(word.text)]
        if not places:
            return None
        word = rng.choice(places)
        if role == COMMAND:
            return self._replace(line, word, kind, word.text, "", self._commands, rng)
        if role == SUBCOMMAND:
            return self._replace(line, word, kind, word.text, "", self._subcommands(word.nodes), rng)
        return self._option_typo(line, word, kind, rng)

    def _is_open(self, text: str) -> bool:
        return text not in self._protected and text.lower() not in self._protected

    def _replace(
        self, line: str, word: Word, kind: str, right: str, before: str, candidates: Candidates, rng: Random
    ) -> str | None:
        """The line with `right`, which stands after `before` in the word, mistyped."""
        if right not in candidates:
            return None
        wrong = self._typist.mistype(right, kind, rng)
        if wrong is None or not wrong[0].isalnum() or not candidates.means(wrong, right, self._tie_ratio):
            return None
        if word.role == OPTION and right.lower().startswith(wrong.lower()):
            return None  # many tools take the beginning of an option for the option
        after = word.text[len(before) + len(right) :]
        return line[: word.start] + before + wrong + after + line[word.end :]

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

    def _option_typo(self, line: str, word: Word, kind: str, rng: Random) -> str | None:
        spelling = word.text.partition(self._grammar.value_separator(word.text))[0]
        name = spelling.lstrip("-/")
        if len(name) < 3 or not self._is_open(spelling):
            return None
        before = spelling[: len(spelling) - len(name)]
        return self._replace(line, word, kind, name, before, self._options(word.nodes), rng)

    def _path_typo(self, kind: str, line: str, words: list[Word], rng: Random) -> str | None:
        places = []
        for word in words:
            if word.role != VALUE or word.text[:1] in "\"'" or "://" in word.text:
                continue
            if not re.search(r"[/\\.~A-Z_]", word.text):
                continue  # a bare word may be any name
            for match in _COMPONENT.finditer(word.text):
                for right, offset in self._known_parts(match.group()):
                    places.append((word, match.start() + offset, right))
        if not places:
            return None
        word, offset, right = rng.choice(places)
        return self._replace(line, word, kind, right, word.text[:offset], self._components, rng)

    def _known_parts(self, component: str) -> list[tuple[str, int]]:
        """The well-known names in a path component: all of it, or its ending after the last dots."""
        if component in self._components:
            return [(component, 0)]
        stem, dot, ending = component.rpartition(".")
        if dot and stem and "." + ending in self._components:
            return [("." + ending, len(stem))]
        return []

    def _follower(self, words: list[Word], word: Word) -> Word | None:
        at = words.index(word)
        return words[at + 1] if at + 1 < len(words) else None

    def _pair(self, family: str, words: list[Word], rng: Random) -> tuple[Word, Word] | None:
        """Two neighbouring words of which a slip of the space bar would be undone by any reader."""
        roles = {
            "command": ((COMMAND, (FLAGS, OPTION, VALUE)),),
            "subcommand": ((COMMAND, (SUBCOMMAND,)), (SUBCOMMAND, (SUBCOMMAND,))),
            "option": ((SUBCOMMAND, (FLAGS, OPTION)), (COMMAND, (OPTION,))),
            "path": ((COMMAND, (VALUE,)),),
        }[family]
        places = []
        for first in words:
            second = self._follower(words, first)
            if (
                second is None
                or not first.nodes
                or not self._is_open(first.text)
                or not self._is_open(second.text)
            ):
                continue
            if any(first.role == role and second.role in others for role, others in roles):
                places.append((first, second))
        return rng.choice(places) if places else None

    def _missing_space(self, family: str, line: str, words: list[Word], rng: Random) -> str | None:
        pair = self._pair(family, words, rng)
        if pair is None:
            return None
        first, second = pair
        if second.role == VALUE and not re.match(r"[./~]|[A-Za-z]:\\", second.text):
            return None
        if self._grammar.shell == "cmd" and second.text[0] in "/.\\":
            return None  # `dir/s` and `cd..` are valid there
        if self._grammar.shell == "powershell" and second.text.startswith(("..", "\\")):
            return None
        joined = first.text + second.text
        if joined in self._commands:
            return None
        return line[: first.end] + line[second.start :]

    def _shifted_space(self, family: str, line: str, words: list[Word], rng: Random) -> str | None:
        pair = self._pair(family, words, rng)
        if pair is None:
            return None
        first, second = pair
        if not first.text.isalpha() or not re.match(r"[A-Za-z]{3}", second.text) or len(first.text) < 2:
            return None
        if rng.random() < 0.75:
            left, right = first.text[:-1], first.text[-1] + second.text
        else:
            left, right = first.text + second.text[0], second.text[1:]
        if left in self._commands or (first.role == SUBCOMMAND and left in self._subcommands(first.nodes)):
            return None
        return line[: first.start] + left + " " + right + line[second.end :]

    def _hyphen_for_space(self, family: str, line: str, words: list[Word], rng: Random) -> str | None:
        pair = self._pair(family, words, rng)
        if pair is None or f"{pair[0].text}-{pair[1].text}" in self._commands:
            return None
        return line[: pair[0].end] + "-" + line[pair[1].start :]

    def _hyphenated(self, family: str, words: list[Word], rng: Random) -> Word | None:
        role = {"command": COMMAND, "option": OPTION}[family]
        places = [
            word
            for word in words
            if word.role == role
            and word.nodes
            and self._is_open(word.text)
            and "-" in word.text.strip("-").split("=")[0]
        ]
        return rng.choice(places) if places else None

    def _swap_hyphen(self, family: str, line: str, words: list[Word], by: str, rng: Random) -> str | None:
        word = self._hyphenated(family, words, rng)
        if word is None:
            return None
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

    def _space_for_hyphen(self, family: str, line: str, words: list[Word], rng: Random) -> str | None:
        return self._swap_hyphen(family, line, words, " ", rng)

    def _missing_hyphen(self, family: str, line: str, words: list[Word], rng: Random) -> str | None:
        return self._swap_hyphen(family, line, words, "", rng)

    def _underscore_for_hyphen(self, family: str, line: str, words: list[Word], rng: Random) -> str | None:
        return self._swap_hyphen(family, line, words, "_", rng)

    def _split_dash(self, family: str, line: str, words: list[Word], rng: Random) -> str | None:
        """A blank after the dash or the slash of an option: `git commit - m "x"`, `tar - xzf a.tar.gz`."""
        places = [
            word for word in words if word.role in (OPTION, FLAGS) and word.nodes and self._is_open(word.text)
        ]
        if not places:
            return None
        word = rng.choice(places)
        dashes = len(word.text) - len(word.text.lstrip("-/"))
        if len(word.text) == dashes:
            return None
        return line[: word.start + dashes] + " " + line[word.start + dashes :]

    def _wrong_slash(self, family: str, line: str, words: list[Word], rng: Random) -> str | None:
        """Backslashes in a POSIX path of which a component is well known."""
        places = [
            word
            for word in words
            if word.role == VALUE
            and re.fullmatch(r"[\w./~-]+", word.text)
            and any(part in self._components for part in word.text.split("/"))
            and "/" in word.text
        ]
        if not places:
            return None
        word = rng.choice(places)
        return line[: word.start] + word.text.replace("/", "\\") + line[word.end :]
