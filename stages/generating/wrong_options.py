"""A correct line with a wrong option in it: a synonym, the wrong case, too few or too many dashes.

The synonyms are in `data/wrong_options.yaml`; the other kinds are derived, and made only where what is typed
is no option of the command, so that the answer is the one there is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random

from stages.common.grammar import Grammar, Node, system_of
from stages.common.lines import FLAGS, OPTION, Word
from stages.generating.tables import Tables, merged

_LETTERS = re.compile(r"-[A-Za-z]+")
_LONG = re.compile(r"--[a-z][a-z-]{3,}")
_SINGLE_DASH_WORD = re.compile(r"-[A-Za-z]{3,}")
_SHORT = re.compile(r"-[a-z]|-[A-Za-z]{2,}")
_SLASHED = re.compile(r"/[A-Za-z?]+")


class WrongOptions:
    """Puts wrong options into the lines of one shell."""

    def __init__(
        self,
        grammar: Grammar,
        synonyms: Mapping[str, Mapping[str, str]],
        real_flags: Mapping[str, str],
        protected: frozenset[str],
        only_slashes: frozenset[str],
    ) -> None:
        """`synonyms`: command with subcommands -> {what is typed: what is right}.

        `real_flags`: command -> letters that are flags of it though its grammar lacks them. `only_slashes`: the
        commands of cmd that refuse an option with a dash.
        """
        self._grammar = grammar
        self._protected = protected
        self._real_flags = real_flags
        self._only_slashes = only_slashes
        self._wrong: dict[tuple[str, str], list[str]] = {}
        self._understood: dict[tuple[str, ...], bool] = {}
        self._single_dash_words: dict[tuple[str, ...], bool] = {}
        for place, pairs in synonyms.items():
            for wrong, right in pairs.items():
                self._wrong.setdefault((self._fold(place), self._fold(right)), []).append(wrong)
        self._kinds = {
            "synonym": self._synonym,
            "wrong_case": self._case,
            "one_dash": self._one_dash,
            "two_dashes": self._two_dashes,
            "other_tool": self._other_tool,
        }

    def has_place(self, kind: str, words: Sequence[Word]) -> bool:
        """Whether some option of the line can be got wrong that way."""
        any_variant = Random(0)
        return any(self._mistaken(kind, word, any_variant) for word in words)

    def make(self, kind: str, line: str, words: Sequence[Word], rng: Random) -> str | None:
        """`line`, whose words are `words`, with one wrong option; None where it offers no fitting place."""
        made = [(word, wrong) for word in words if (wrong := self._mistaken(kind, word, rng))]
        if not made:
            return None
        word, wrong = rng.choice(made)
        return line[: word.start] + wrong + line[word.end :]

    def _mistaken(self, kind: str, word: Word, rng: Random) -> str | None:
        """What is typed for the word; None where it is no option that can be got wrong that way."""
        if word.role not in (OPTION, FLAGS) or not word.nodes or word.text.lower() in self._protected:
            return None
        separator = self._grammar.value_separator(word.text)
        name, found, value = word.text.partition(separator)
        wrong = self._kinds[kind](word, name, rng)
        if wrong is None or wrong == name or self._is_understood(wrong, word.nodes):
            return None
        return wrong + found + value

    def _fold(self, text: str) -> str:
        return text.lower() if self._grammar.fold else text

    def _is_valid(self, spelling: str, nodes: tuple[Node, ...]) -> bool:
        return any(node.option(spelling, fold=self._grammar.fold) for node in nodes)

    def _is_understood(self, spelling: str, nodes: tuple[Node, ...]) -> bool:
        """Whether it is an option, or the beginning of a long one, which many tools take for the option."""
        key = (spelling, *(node.name for node in nodes))
        if key not in self._understood:
            start = self._fold(spelling)
            is_long = len(spelling.lstrip("-")) > 1 and not spelling.startswith("/")
            self._understood[key] = self._is_valid(spelling, nodes) or (
                is_long and any(self._fold(known).startswith(start) for node in nodes for known in node.options)
            )
        return self._understood[key]

    def _all_flags_valid(self, letters: str, nodes: tuple[Node, ...]) -> bool:
        real = self._real_flags.get(nodes[0].name, "")
        return all(letter in real or self._is_valid("-" + letter, nodes) for letter in letters)

    def _synonym(self, word: Word, name: str, rng: Random) -> str | None:
        place = self._fold(" ".join(node.name for node in word.nodes))
        found = self._wrong.get((place, self._fold(name)))
        return rng.choice(found) if found else None

    def _case(self, word: Word, name: str, rng: Random) -> str | None:
        """`-xzf` as `-XZF`, `--noEmit` as `--noemit`; not where case does not matter."""
        if name.startswith("--"):
            return name.lower()
        if self._grammar.fold and word.nodes[0].source in ("cmd", "psscriptanalyzer"):
            return None
        if not _LETTERS.fullmatch(name) or not self._all_flags_valid(name[1:], word.nodes):
            return None
        wrong = name.swapcase()
        return None if self._all_flags_valid(wrong[1:], word.nodes) else wrong

    def _one_dash(self, word: Word, name: str, rng: Random) -> str | None:
        """`--amend` as `-amend`, unless the command has options of that shape or the letters are flags."""
        if not _LONG.fullmatch(name) or self._has_single_dash_words(word.nodes):
            return None
        return None if self._all_flags_valid(name[2:].replace("-", ""), word.nodes) else name[1:]

    def _has_single_dash_words(self, nodes: tuple[Node, ...]) -> bool:
        key = tuple(node.name for node in nodes)
        if key not in self._single_dash_words:
            self._single_dash_words[key] = any(
                _SINGLE_DASH_WORD.fullmatch(spelling) for node in nodes for spelling in node.options
            )
        return self._single_dash_words[key]

    def _two_dashes(self, word: Word, name: str, rng: Random) -> str | None:
        """`-la` as `--la`, `-Recurse` as `--Recurse`, unless a long option begins so; `-V` nobody gets wrong."""
        if not _SHORT.fullmatch(name):
            return None
        wrong = "-" + name
        if any(spelling.startswith(wrong) for node in word.nodes for spelling in node.options):
            return None
        return wrong

    def _other_tool(self, word: Word, name: str, rng: Random) -> str | None:
        """A dash for the slash of cmd (`dir -s`), a slash for the dash of PowerShell (`ls /Recurse`)."""
        source = word.nodes[0].source
        if source == "cmd" and _SLASHED.fullmatch(name):
            return "-" + name[1:] if word.nodes[0].name.lower() in self._only_slashes else None
        if source == "psscriptanalyzer" and _SINGLE_DASH_WORD.fullmatch(name):
            return "/" + name[1:]
        return None


def synonym_table(tables: Tables, grammar: Grammar) -> dict[str, dict[str, str]]:
    """The synonyms of a shell; those of the tools that run everywhere count in the Windows shells too."""
    own = merged(tables.wrong_options, grammar.shell)
    if system_of(grammar.shell) == "posix":
        return own
    portable = frozenset(tables.sampling["portable"]["tools"])
    posix = tables.wrong_options["posix"]
    everywhere = {place: pairs for place, pairs in posix.items() if place.split()[0] in portable}
    return everywhere | own
