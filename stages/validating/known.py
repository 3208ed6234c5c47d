"""Whether what the answers run exists: their commands, subcommands and options, looked up for a sample."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from rapidfuzz import process
from rapidfuzz.distance import OSA

from stages.common.config import PARAMS
from stages.common.grammar import Grammar, build_grammars, read_grammars, system_of
from stages.common.lines import COMMAND, FLAGS, OPERATOR, OPTION, SUBCOMMAND, VALUE, Word, annotate
from stages.common.paths import PROMISED
from stages.validating.answers import runs_one_of
from stages.validating.limits import limits
from stages.validating.rows import Finding, Row

_TABLES = Path("data/grammar")
_MARKS = re.compile(r"[=:|&;<>()]")
"""What may stand beside a word without a blank."""
_LETTERS_WITHIN = re.compile(r"[^\W_](?:.*[^\W_])?")
_NATIVE = ("cmd", "psscriptanalyzer")
"""Sources of what only the Windows shells have."""


@dataclass
class Looked:
    """What looking up a sample of answers has shown; `unknown`: each answer with a word that is in no grammar."""

    answers: int = 0
    unknown: list[tuple[Row, str]] = field(default_factory=list)

    @property
    def known_share(self) -> float:
        """The share (0 to 1) of answers all of whose commands, subcommands and options exist."""
        return 1 - len(self.unknown) / max(self.answers, 1)

    @property
    def words(self) -> Counter[str]:
        """The unknown words, and how many answers have each."""
        return Counter(word for _, word in self.unknown)


@cache
def grammars_by_system() -> Mapping[str, Grammar]:
    """System (posix, powershell, cmd) -> its grammar; the POSIX shells have the same."""
    grammars = build_grammars(("bash", "powershell", "cmd"), read_grammars(_TABLES))
    return {system_of(shell): grammar for shell, grammar in grammars.items()}


def known_at(line: str, place: int, system: str) -> str | None:
    """What stands at a place of a line if it is a command, a subcommand or an option that the grammars know.

    `system`: one of `grammars_by_system`. A command of POSIX counts for nothing in the Windows shells, which may
    lack it.
    """
    grammar = grammars_by_system()[system]
    text = _text_at(line, place)
    if not _MARKS.search(text) and (text.lower() if grammar.fold else text) not in _vocabulary(system):
        return None  # nearly every typo, at the cost of one look
    for word in annotate(line, grammar):
        if word.end < place:
            continue
        if word.role == COMMAND and word.nodes and (system == "posix" or word.nodes[0].source in _NATIVE):
            return f"the command {word.text}"
        if word.role == SUBCOMMAND:
            return f"the subcommand {word.tool} {word.text}"
        if word.role in (OPTION, FLAGS) and word.nodes and _is_known(word, grammar):
            return f"the option {word.tool} {word.text}"
        return None
    return None


def _text_at(line: str, place: int) -> str:
    """What stands between blanks around a place of a line."""
    end = line.find(" ", place)
    return line[line.rfind(" ", 0, place) + 1 : len(line) if end < 0 else end]


@cache
def _vocabulary(system: str) -> frozenset[str]:
    """All commands, subcommands and options of a system, in lower case where it ignores case."""
    grammar = grammars_by_system()[system]
    words = set(grammar.commands)
    nodes = list(grammar.commands.values())
    while nodes:
        node = nodes.pop()
        words |= node.options.keys() | node.subcommands.keys()
        nodes += node.subcommands.values()
    return frozenset(map(str.lower, words) if grammar.fold else words)


def nearest_command(word: str, system: str, edits: int) -> str | None:
    """The command that lies nearest to a word, marks around it and capitals apart, within so many edits."""
    found = _LETTERS_WITHIN.search(word.casefold())
    if found is None:
        return None
    near = process.extractOne(found.group(), _command_names(system), scorer=OSA.distance, score_cutoff=edits)
    return near[0] if near else None


@cache
def _command_names(system: str) -> tuple[str, ...]:
    """All commands of a system in lower case."""
    return tuple(sorted({name.casefold() for name in grammars_by_system()[system].commands}))


def look_up(rows: Sequence[Row], grammars: Mapping[str, Grammar], seed: int) -> Looked:
    """Look up a seeded sample of the answers that the model is to write (not of lines that stay as they are)."""
    written = [row for row in rows if row.family not in limits().unchanged]
    sample = random.Random(f"{seed}:known").sample(written, min(limits().known_sample, len(written)))
    looked = Looked(answers=len(sample))
    for row in sample:
        system = system_of(row.shell)
        unknown = next(unknown_words(row.after, system, grammars[system]), None)
        if unknown is not None:
            looked.unknown.append((row, unknown))
    return looked


def check_known(looked: Looked) -> list[Finding]:
    """One finding for every answer with an unknown word, where there are more of them than the limit allows."""
    wanted = limits().known_share
    if looked.known_share >= wanted:
        return []
    shares = f"{looked.known_share:.2%} of the answers run what is known, {wanted:.2%} are wanted"
    return [row.finding("grammar", f"in no grammar: {word}; {shares}") for row, word in looked.unknown]


def check_heldout(tools: Sequence[str], promised: Iterable[str]) -> Iterator[Finding]:
    """A tool to keep out of training that no shell has, that is named twice, or that a promised answer runs.

    A mistyped name would keep nothing out, and the promised lines are trained on.
    """
    for tool, times in Counter(tools).items():
        if times > 1:
            yield Finding(PARAMS, 0, "split", f"data.heldout_tools: there {times} times; name it once", tool)
        if not any(_has(system, tool) for system in grammars_by_system()):
            near = next(filter(None, (nearest_command(tool, system, 2) for system in grammars_by_system())), None)
            hint = f"did you mean {near}?" if near else "name a tool that data/grammar has"
            yield Finding(PARAMS, 0, "split", f"data.heldout_tools: no shell has this tool; {hint}", tool)
    runs_heldout = runs_one_of(tools)
    for answer in filter(runs_heldout, promised):
        message = f"{PROMISED} promises it, so data.heldout_tools cannot keep its tool out of training"
        yield Finding(PARAMS, 0, "split", message, answer)


def _has(system: str, tool: str) -> bool:
    grammar = grammars_by_system()[system]
    return bool(grammar.command(tool) or limits().known_commands[system].fullmatch(tool))


def unknown_words(line: str, system: str, grammar: Grammar) -> Iterator[str]:
    """The commands, subcommands and options of a line that are in no grammar nor in the table of what else exists.

    A value counts as an unknown subcommand where one can stand, unless the tool also takes free words there;
    behind an option it may be the option's.
    """
    before = OPERATOR
    for word in annotate(line, grammar):
        if word.role == COMMAND and not word.nodes:
            if not limits().known_commands[system].fullmatch(word.text):
                yield word.text
        elif word.role in (OPTION, FLAGS) and word.nodes:
            besides = limits().known_options.get(word.tool)
            is_known = _is_known(word, grammar) or _has_value_behind(word)
            if not is_known and not (besides and besides.fullmatch(word.text)):
                yield f"{word.tool} {word.text}"
        elif word.role == VALUE and before in (COMMAND, SUBCOMMAND) and _stands_for_a_subcommand(word):
            yield f"{word.tool} {word.text}"
        before = word.role


def _stands_for_a_subcommand(word: Word) -> bool:
    """Whether nothing else can stand where this word stands."""
    return bool(word.nodes and word.nodes[-1].subcommands) and word.tool not in limits().known_free_words


def _has_value_behind(option: Word) -> bool:
    """Whether it is a one-letter option with its value in the same word: `-F:`, `-uno`."""
    found = [node.option(option.text[:2], fold=False) for node in option.nodes]
    return any(one is not None and (one.takes_value or one.optional_value) for one in found)


def _is_known(option: Word, grammar: Grammar) -> bool:
    """Whether the tool or its subcommand has this option, or every letter of a cluster."""
    if option.role == OPTION:
        name = option.text.partition(grammar.value_separator(option.text))[0]
        if not name.strip("-") or any(node.option(name, fold=grammar.fold) for node in option.nodes):
            return True
        return grammar.shell == "powershell" and any(
            spelling.startswith(name.lower()) for spelling in option.nodes[-1].folded_options
        )
    return all(
        letter.isdigit() or any(node.option(f"-{letter}", fold=False) for node in option.nodes)
        for letter in option.text[1:]
    )
