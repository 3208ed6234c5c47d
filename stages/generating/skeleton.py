"""The unit of splitting: a command line without its particulars, together with the mistake made in it.

Two rows that differ only in a path, a name, a number or a quoted text have the same skeleton, so they can
never stand on two sides of a split.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from stages.common.grammar import Grammar
from stages.common.lines import COMMAND, OPTION, VALUE, Word

_PIECE = re.compile(r"[\s/\\.=:,\"']|[^\s/\\.=:,\"']+")

_NUMBER = re.compile(r"[\d.,:%+-]+[a-zA-Z]{0,2}")
_IN_PATHS = re.compile(r"[/\\~.*]")


def mask(words: Iterable[Word], grammar: Grammar) -> str:
    """The line of these words with every value replaced by its kind, words separated by one blank.

    `git commit -m "wip"` -> `git commit -m <text>`; `ls --color=auto src` -> `ls --color=<name> <name>`.
    """
    masked = []
    for word in words:
        if word.role == VALUE or (word.role == COMMAND and not word.nodes and "/" in word.text):
            masked.append(_kind(word.text))
        elif word.role == OPTION:
            separator = grammar.value_separator(word.text)
            name, found, value = word.text.partition(separator)
            masked.append(name + found + (_kind(value) if value else ""))
        else:
            masked.append(word.text)
    return " ".join(masked)


def _kind(value: str) -> str:
    if value[:1] in "\"'`":
        return "<text>"
    if _NUMBER.fullmatch(value):
        return "<number>"
    if _IN_PATHS.search(value):
        return "<path>"
    return "<name>"


def mistake(typed: str, answer: str) -> tuple[str, str]:
    """The part of `typed` that is wrong and what stands there in `answer`: whole words or path components."""
    wrong, right = _PIECE.findall(typed), _PIECE.findall(answer)
    while wrong and right and wrong[0] == right[0]:
        del wrong[0], right[0]
    while wrong and right and wrong[-1] == right[-1]:
        del wrong[-1], right[-1]
    return "".join(wrong), "".join(right)


def group_key(typed: str, answer: str, words: Iterable[Word], grammar: Grammar) -> str:
    """Twelve hexadecimal digits that rows share exactly when skeleton and mistake are the same.

    `words` are those of the answer.
    """
    return named_key(mask(words, grammar), *mistake(typed, answer))


def named_key(*parts: str) -> str:
    """The group of rows that agree in these parts, where they and not the texts tell what rows have in common."""
    return hashlib.blake2s("\0".join(parts).encode(), digest_size=6).hexdigest()
