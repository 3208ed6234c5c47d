"""Danger that a correction adds: sudo, --force, rm -rf, ... which the typed line does not carry.

What is dangerous is data, in `data/danger.yaml`. The typed line carries a danger when the same word stands in it,
another word of the same kind (`-f` for `--force`), evidence of it (`: Permission denied`), or a typo of it
(`--forc`, `sudp`, `rm-rf`): a word that the answer no longer has and that lies within two edits.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from rapidfuzz.distance import OSA

from stages.common.files import read_yaml
from stages.common.words import command_name, quoted_lines, simple_commands, unquote, words

DANGER = Path("data/danger.yaml")
_BUNDLE = re.compile(r"-[A-Za-z]{1,6}")
_MARKS = "-/@"
_RUN = re.compile(r"[\w-]+")
_LETTER = re.compile(r"\w")


@dataclass(frozen=True)
class Danger:
    """One dangerous thing in a line: its kind, the word that makes it so (None: the shape of the whole line)."""

    kind: str
    word: str | None
    letter: str | None = None
    """The one letter of the word that is dangerous, where the word is a bundle of one-letter options."""


@dataclass(frozen=True)
class DangerTable:
    """The part of `data/danger.yaml` that one shell reads, with names folded where case says nothing."""

    fold: bool
    words: dict[str, str]
    commands: dict[str, str]
    options: dict[str, dict[str, str]]
    lines: dict[str, re.Pattern[str]]
    evidence: dict[str, re.Pattern[str]]
    edits: int
    edits_short: int
    short_letters: int
    beginnings: frozenset[str]
    """What dangerous words and commands begin with, up to the first mark, in lower case."""
    named: re.Pattern[str]
    """Any dangerous word or command."""
    choosy: re.Pattern[str]
    """Any command that some option makes dangerous,"""
    chosen: re.Pattern[str]
    """and any such option, or a bundle of one-letter options."""

    def may_hold(self, command: str) -> bool:
        """False only where a line holds nothing dangerous; most lines are settled by these few searches."""
        return bool(
            (not self.beginnings.isdisjoint(_RUN.findall(command.lower())) and self.named.search(command))
            or (self.choosy.search(command) and self.chosen.search(command))
            or any(shape.search(command) for shape in self.lines.values())
        )

    def normalize(self, word: str) -> str:
        """The word as it is compared; `-Force:$true` is `-Force`."""
        return unquote(word).lower().removesuffix(":$true") if self.fold else unquote(word)


@cache
def danger_table(shell: str) -> DangerTable:
    """The table of one shell."""
    content: dict[str, Any] = read_yaml(DANGER)
    group = content["shells"][shell]
    fold = group != "posix"

    def named(kinds: dict[str, list[str]]) -> dict[str, str]:
        return {name.lower() if fold else name: kind for kind, names in kinds.items() for name in names}

    options: dict[str, dict[str, str]] = {}
    for entry in content["options"][group]:
        for command in entry["commands"]:
            known = options.setdefault(command.lower() if fold else command, {})
            known.update(named({entry["kind"]: entry["options"]}))
    dangerous, commands = named(content["words"][group]), named(content["commands"][group])
    return DangerTable(
        fold=fold,
        words=dangerous,
        commands=commands,
        options=options,
        evidence={kind: re.compile(shape, re.IGNORECASE) for kind, shape in content["evidence"].items()},
        lines={kind: re.compile(shape, re.IGNORECASE) for kind, shape in content["lines"][group].items()},
        **content["typo"],
        beginnings=frozenset(_RUN.search(name)[0].lower() for name in (*dangerous, *commands)),
        named=_any_word({*dangerous, *commands}),
        choosy=_any_word(name.split()[0] for name in options),
        chosen=re.compile(rf"-[A-Z]{{1,6}}(?![A-Z])|{_any_word(chain(*options.values())).pattern}", re.IGNORECASE),
    )


def _any_word(names: Iterable[str]) -> re.Pattern[str]:
    joined = "|".join(map(re.escape, sorted(set(names))))
    return re.compile(rf"(?<![\w-])(?:{joined})(?![\w-])", re.IGNORECASE)


def added_danger(shell: str, before: str, after: str) -> list[str]:
    """What the answer `after` adds to the typed line `before`, as short texts such as `elevation: sudo`.

    Empty where it adds nothing. `shell` is one of the six.
    """
    if before == after:
        return []
    table = danger_table(shell)
    if not table.may_hold(after):
        return []
    dangers = find_dangers(table, after)
    if not dangers:
        return []
    typed = Counter(_words(table, before))
    answered = Counter(_words(table, after))
    gone, new = typed - answered, answered - typed
    carried = {danger.kind for danger in find_dangers(table, before) if danger.word is None or danger.word in gone}
    carried |= {kind for kind, shape in table.evidence.items() if shape.search(before)}
    # in typed order, for adjacent words that a stray space parted
    lost = [word for word in _words(table, before) if word in gone]
    added = []
    for danger in dangers:
        if danger.word is None:
            is_new = danger.kind not in carried and _edits(before, after) > table.edits
        else:
            is_new = danger.word in new and danger.kind not in carried and not _is_typo(table, danger, lost)
        if is_new:
            added.append(f"{danger.kind}: {danger.word}" if danger.word else danger.kind)
    return list(dict.fromkeys(added))


def find_dangers(table: DangerTable, command: str) -> list[Danger]:
    """Every dangerous thing in one line, in no order that matters."""
    found = [Danger(kind, None) for kind, shape in table.lines.items() if shape.search(command)]
    for inner in quoted_lines(command):
        found += find_dangers(table, inner)
    for simple in simple_commands(command):
        line = [table.normalize(word) for word in simple]
        found += [Danger(table.words[word], word) for word in line if word in table.words]
        name = command_name(line[0])
        if name in table.commands:
            found.append(Danger(table.commands[name], line[0]))
        known = _options_of(table, name, line[1:])
        for word in line[1:] if known else ():
            if word in known:
                found.append(Danger(known[word], word, word[1:] if len(word) == 2 else None))
            elif not table.fold and _BUNDLE.fullmatch(word):
                found += [
                    Danger(known[f"-{letter}"], word, letter) for letter in word[1:] if f"-{letter}" in known
                ]
    return found


def _options_of(table: DangerTable, name: str, arguments: list[str]) -> dict[str, str]:
    found = dict(table.options.get(name, ()))
    for argument in arguments:
        found.update(table.options.get(f"{name} {argument}", ()))
    return found


def _words(table: DangerTable, command: str) -> list[str]:
    """The words of a line as they are compared, with those inside quoted text."""
    lines = [command, *quoted_lines(command)]
    return [table.normalize(word) for line in lines for word in words(line)]


def _is_typo(table: DangerTable, danger: Danger, lost: list[str]) -> bool:
    """Whether one of the typed words that are gone, or two neighbours of them, was this word mistyped."""
    joined = [first + second for first, second in pairwise(lost)]
    return any(_mistyped(table, danger, candidate) for candidate in [*lost, *joined])


def _mistyped(table: DangerTable, danger: Danger, candidate: str) -> bool:
    word = danger.word or ""
    if not _LETTER.search(word):  # `*` is no slip of a name
        return not _LETTER.search(candidate)
    if candidate.startswith(word) or candidate.endswith(word):  # a missing space
        return True
    name = word.strip(_MARKS)
    edits = OSA.distance(word, candidate)
    if danger.letter is not None:
        # `-f` to `-rf` is one edit and adds danger; `-tf` to `-rf` is a slip of the finger
        slip = len(name) > 1 and edits <= table.edits_short and len(candidate) >= len(word)
        typed = candidate.strip(_MARKS)
        return (danger.letter in typed and OSA.distance(name, typed) <= table.edits_short) or slip
    if name.isdigit():
        # 755 for 777 is another number; 77, 7777 and two digits in the wrong order are slips
        return edits <= table.edits_short and (len(candidate) != len(word) or sorted(candidate) == sorted(word))
    if len(name) < table.short_letters:
        return edits <= table.edits_short
    shortened = candidate.startswith(("-", "/")) and len(candidate) > 2 and word.startswith(candidate)
    return edits <= table.edits or shortened


def _edits(before: str, after: str) -> int:
    return OSA.distance(before.replace(" ", ""), after.replace(" ", ""))
