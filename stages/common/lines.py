"""A command line as words with roles, found by walking the grammar of its shell.

`annotate` is what sampling, mistakes and masking share: a word is the command, a subcommand, an option, a
cluster of one-letter flags, an operator between commands, or a value that nobody but the user can know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from stages.common.grammar import Grammar, Node

COMMAND, SUBCOMMAND, OPTION, FLAGS, VALUE, OPERATOR = (
    "command",
    "subcommand",
    "option",
    "flags",
    "value",
    "operator",
)

# Quoted text, $(...), (...) and {...} belong to one word; a backslash keeps the next `;` or blank.
_WORD = re.compile(
    r"""(?P<operator>\|\||&&|\d?>>?(?!&)|[|;<]|&(?!>))
      | (?P<word>(?:"(?:[^"\\]|\\.)*"|'[^']*'|`[^`]*`|\$?\([^()]*\)|\$?\{[^{}]*\}|@\{[^{}]*\}
                   |\\[;\ ]|\d?>&\d|&>|[^\s|;&<>])+)""",
    re.VERBOSE,
)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_NEW_COMMAND = {"|", "||", "&&", ";", "&"}
_CLUSTER = re.compile(r"-[A-Za-z0-9]{1,6}")
_REDIRECTIONS = re.compile(r"\d?>>?|<")


class Word(NamedTuple):
    """One word of a line: `line[start:end]`, its role, and the grammar nodes it was looked up in.

    `nodes` runs from the command to the deepest subcommand before the word (for a subcommand: its parents).
    """

    text: str
    start: int
    end: int
    role: str
    nodes: tuple[Node, ...] = ()

    @property
    def tool(self) -> str:
        """The command this word belongs to; empty for a command that the grammar does not know."""
        return self.nodes[0].name if self.nodes else ""


def split(line: str) -> Iterator[tuple[str, int, int, bool]]:
    """The words of a line as `(text, start, end, is an operator)`."""
    for match in _WORD.finditer(line):
        yield match.group(), match.start(), match.end(), match.lastgroup == "operator"


def annotate(line: str, grammar: Grammar) -> list[Word]:
    """The words of a line with their roles; unknown words are values, so that they are never corrected."""
    words: list[Word] = []
    nodes: tuple[Node, ...] = ()
    at_command, value_next, value_before, options_ended = True, False, False, False
    for text, start, end, is_operator in split(line):
        if is_operator:
            words.append(Word(text, start, end, OPERATOR))
            if text in _NEW_COMMAND:
                nodes, at_command, value_next, value_before, options_ended = (), True, False, False, False
            elif _REDIRECTIONS.fullmatch(text):
                value_next = True
        elif value_next:
            words.append(Word(text, start, end, VALUE, nodes))
            value_next = False
        elif at_command and not (nodes and (grammar.is_option(text) or text.startswith("-"))):
            if _ASSIGNMENT.match(text) or value_before:
                words.append(Word(text, start, end, VALUE))
                value_before = False
                continue
            node = grammar.command(text)
            nodes = (node,) if node else ()
            words.append(Word(text, start, end, COMMAND, nodes))
            at_command, options_ended = text in grammar.wrappers.names, False
            value_before = text in grammar.wrappers.valued
        elif grammar.is_option(text) and not options_ended:
            role, value_next = _option_role(text, nodes, grammar)
            words.append(Word(text, start, end, role, nodes))
            options_ended = text == "--"
            at_command = _still_wrapped(nodes, grammar)
        else:
            child = nodes[-1].subcommand(text, fold=grammar.fold) if nodes else None
            words.append(Word(text, start, end, SUBCOMMAND if child else VALUE, nodes))
            if child:
                nodes = (*nodes, child)
            elif nodes and nodes[-1].subcommands:
                nodes = (*nodes[:-1], nodes[-1].without_subcommands())
    return words


def arguments(words: Iterable[Word], grammar: Grammar) -> Iterator[Word]:
    """The values that belong to no option."""
    value_next = False
    for word in words:
        if word.role in (OPTION, FLAGS):
            value_next = _option_role(word.text, word.nodes, grammar)[1]
            continue
        if word.role == VALUE and not value_next:
            yield word
        value_next = False


def _still_wrapped(nodes: tuple[Node, ...], grammar: Grammar) -> bool:
    """After an option of `sudo` and its like a command may still follow; after others it may not."""
    return len(nodes) == 1 and nodes[0].name in grammar.wrappers.names


def _option_role(text: str, nodes: tuple[Node, ...], grammar: Grammar) -> tuple[str, bool]:
    """The role of an option-like word, and whether the next word is its value."""
    name, separator, _ = text.partition(grammar.value_separator(text))
    for node in reversed(nodes):
        found = node.option(name, fold=grammar.fold)
        if found is not None:
            return OPTION, bool(found.takes_value and not separator)
    if _CLUSTER.fullmatch(text):
        last = "-" + text[-1]
        takes = [found for node in nodes if (found := node.option(last, fold=False))]
        return FLAGS, bool(takes and takes[-1].takes_value)
    return OPTION, False
