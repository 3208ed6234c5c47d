"""`data/validation.yaml`, compiled: what rows are held to besides params.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stages.common.files import read_yaml

LIMITS = Path("data/validation.yaml")
UNFIXABLE = Path("data/unfixable.yaml")
PIECE = re.compile(r"[^\W\d_]+|\d+")
_SLOT = re.compile(r"\{[a-z][a-z_]*\d?\}")
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")


@dataclass(frozen=True)
class Shape:
    """What must not stand in a line, and the shapes in which the same characters mean something else."""

    pattern: re.Pattern[str]
    allow: tuple[re.Pattern[str], ...]
    outside_quotes: bool

    def find(self, line: str) -> str | None:
        """The first place in the line, as text."""
        found = self.pattern.search(line)
        if found is None:
            return None
        if self.outside_quotes:
            line = _QUOTED.sub("''", line)
        for allowed in self.allow:
            line = allowed.sub("", line)
        found = self.pattern.search(line)
        return found.group() if found else None


class Shapes:
    """What must not stand in a line, by kind."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self.shapes = shapes
        self._any = re.compile("|".join(f"(?:{shape.pattern.pattern})" for shape in shapes.values()))

    def find(self, line: str) -> dict[str, str]:
        """The first place of each kind, as text."""
        if self._any.search(line) is None:  # nearly every line, at the cost of one search
            return {}
        return {kind: found for kind, shape in self.shapes.items() if (found := shape.find(line))}


@dataclass(frozen=True)
class Limits:
    """The content of `data/validation.yaml`."""

    share_tolerance: float
    printed: int
    families: frozenset[str]
    kinds: frozenset[str]
    unchanged: frozenset[str]
    """Families in which the answer is what was typed."""
    unchanged_kinds: Mapping[str, str]
    """Kind -> the family of those that alone has it."""
    no_command_kinds: frozenset[str]
    """Kinds of lines that are no command of any shell."""
    unfixable_edits: int
    """The first word of an unfixable line is further than this from every command."""
    sentence_words: int
    """Gibberish of so many words is read as a sentence, which nobody takes for a mistyped command."""
    split_shares: Mapping[str, float]
    group_share_max: float
    group_rows_any: int
    skeleton_share_max: float
    skeleton_rows_any: int
    operator_shares: Mapping[str, float]
    operator_tolerance: float
    operator_rows_any: int
    kinds_of_form: frozenset[str]
    slip_edits: int
    """So many characters differ at most after a mistake of these kinds."""
    slip_kinds: frozenset[str]
    mistyped_families: frozenset[str]
    mistyped_kinds: frozenset[str]
    foreign: Mapping[str, re.Pattern[str]]
    """Shell -> what no answer of it holds."""
    leftovers: Shapes
    chat_marks: Shape
    """Those of them that no tool says either."""
    private: Shapes
    values: Mapping[str, re.Pattern[str]]
    not_values: Mapping[str, re.Pattern[str]]
    value_edits: int
    table_words: Mapping[str, Mapping[str, Sequence[frozenset[str]]]]
    """Family -> `command_key` of an answer's first word (empty where that begins with a slot) -> for each entry of
    the family's table that has such an answer the pieces of words that its answers carry whatever is asked."""
    syntax_allow: Mapping[str, re.Pattern[str]]
    without_grammar: Mapping[str, tuple[re.Pattern[str], re.Pattern[str]]]
    """Shell -> a quoted text or a quote without its partner, and what no line holds outside of them."""
    shell_sample: int
    known_share: float
    known_sample: int
    known_commands: Mapping[str, re.Pattern[str]]
    """System -> commands that exist though no grammar has them."""
    known_options: Mapping[str, re.Pattern[str]]
    """Tool -> the same for its options."""
    known_free_words: frozenset[str]
    """Tools that take subcommands or other words in the same place."""


@cache
def limits() -> Limits:
    """Read once a process."""
    content = read_yaml(LIMITS)
    unfixable = read_yaml(UNFIXABLE)
    return Limits(
        share_tolerance=content["share_tolerance"],
        printed=content["printed"],
        families=frozenset(content["families"]),
        kinds=frozenset(content["kinds"]),
        unchanged=frozenset(content["unchanged"]),
        unchanged_kinds={kind: family for family, kinds in content["unchanged"].items() for kind in kinds},
        no_command_kinds=frozenset(content["no_command_kinds"]),
        unfixable_edits=unfixable["edits"],
        sentence_words=unfixable["sentence_words"],
        split_shares=content["split"]["shares"],
        group_share_max=content["split"]["group_share_max"],
        group_rows_any=content["split"]["group_rows_any"],
        skeleton_share_max=content["skeleton_share_max"],
        skeleton_rows_any=content["skeleton_rows_any"],
        operator_shares=content["operators"]["shares"],
        operator_tolerance=content["operators"]["tolerance"],
        operator_rows_any=content["operators"]["rows_any"],
        kinds_of_form=frozenset(content["kinds_of_form"]),
        slip_edits=content["slips"]["edits"],
        slip_kinds=frozenset(content["slips"]["kinds"]),
        mistyped_families=frozenset(content["mistyped"]["families"]),
        mistyped_kinds=frozenset(content["mistyped"]["kinds"]),
        foreign={shell: _any_of(shapes) for shell, shapes in content["foreign"].items()},
        leftovers=(leftovers := _shapes(content["leftovers"])),
        chat_marks=leftovers.shapes["chat"],
        private=_shapes(content["private"]),
        values={name: re.compile(shape) for name, shape in content["values"].items()},
        not_values={name: _any_of(shapes) for name, shapes in content["not_values"].items()},
        value_edits=content["value_edits"],
        table_words={family: _fixed_words(Path(path)) for family, path in content["value_tables"].items()},
        without_grammar={
            shell: (_quoting(entry["quotes"]), re.compile(entry["refuse"]))
            for shell, entry in content["without_grammar"].items()
        },
        shell_sample=content["shell_sample"],
        known_share=content["known"]["share"],
        known_sample=content["known"]["sample"],
        known_commands={system: _any_of(shapes) for system, shapes in content["known"]["commands"].items()},
        known_options={tool: _any_of(shapes) for tool, shapes in content["known"]["options"].items()},
        known_free_words=frozenset(content["known"]["free_words"]),
        syntax_allow={shell: _any_of(shapes) for shell, shapes in content["syntax_allow"].items()},
    )


def _shapes(entries: Mapping[str, Any]) -> Shapes:
    return Shapes(
        {
            name: Shape(
                re.compile(entry["pattern"]),
                tuple(re.compile(shape) for shape in entry.get("allow", ())),
                entry.get("outside_quotes", False),
            )
            for name, entry in entries.items()
        }
    )


def _fixed_words(table: Path) -> Mapping[str, Sequence[frozenset[str]]]:
    """The runs of letters and digits in the answers of a table's entries, those of its slots apart."""
    entries = read_yaml(table)
    found: dict[str, list[frozenset[str]]] = {}
    for entry in entries:
        answers = [
            text
            for texts in (*entry["answer"].values(), *entry.get("accept", {}).values())
            for text in ([texts] if isinstance(texts, str) else texts)
        ]
        pieces = frozenset(piece for text in answers for piece in PIECE.findall(_SLOT.sub(" ", text)))
        for word in {command_key(_SLOT.split(text.split()[0])[0]) for text in answers}:
            found.setdefault(word, []).append(pieces)
    return found


def _quoting(marks: str) -> re.Pattern[str]:
    """What is quoted by one of the marks; in the group `open` a mark that nothing closes."""
    whole = "|".join(f"{mark}[^{mark}]*{mark}" for mark in marks)
    return re.compile(rf"\\.|{whole}|(?P<open>[{marks}])")


def command_key(word: str) -> str:
    """What the first words of answers that run the same have in common: the first letters or digits, if any."""
    piece = PIECE.search(word)
    return piece.group().lower() if piece else word.strip("\\/")


def _any_of(shapes: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{shape})" for shape in shapes))
