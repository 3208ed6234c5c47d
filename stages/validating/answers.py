"""What an answer says by itself, whatever was typed: worked out once, since half of the rows share theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from stages.common.danger import danger_table
from stages.common.words import command_names, words
from stages.validating.limits import limits
from stages.validating.syntax import parses


@dataclass(frozen=True, slots=True)
class Answer:
    """One command line of one shell; of an unknown shell (an empty name) less is known."""

    words: tuple[str, ...]
    commands: frozenset[str]
    """The names of its commands."""
    foreign: str | None
    """What in it is another shell's language."""
    private: Mapping[str, str]
    leftovers: Mapping[str, str]
    """Kind -> what looks like a secret, and like remains of a template."""
    parses: bool
    may_endanger: bool
    """False only where nothing in it is dangerous."""


def runs_one_of(names: Sequence[str]) -> Callable[[str], bool]:
    """Whether an answer, as text, runs one of the tools of these names."""
    tools = {name.lower() for name in names}
    named = re.compile("|".join(map(re.escape, names)), re.IGNORECASE)  # a quick look, which settles most answers

    def runs(answer: str) -> bool:
        return bool(named.search(answer)) and not tools.isdisjoint(command_names(answer))

    return runs


@lru_cache(maxsize=1 << 16)
def read_answer(shell: str, text: str) -> Answer:
    """Look an answer over; `shell` is one of the six, or empty."""
    strange = limits().foreign[shell].search(text) if shell else None
    line = words(text)
    return Answer(
        words=tuple(line),
        commands=frozenset(command_names(text)),
        foreign=strange.group().strip() if strange else None,
        private=limits().private.find(text),
        leftovers=limits().leftovers.find(text),
        parses=parses(shell, text),
        may_endanger=bool(shell) and danger_table(shell).may_hold(text),
    )
