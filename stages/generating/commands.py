"""Correct command lines: everyday ones out of templates, others drawn from the grammar itself.

A template is a line with `{slots}`; `data/slots.yaml` gives a slot's values, `data/popularity.json` says how
often a tool is drawn. A grammar line is a tool, a subcommand, up to three harmless options and the arguments
for which some slot has values; what has none is not drawn, so that no value is made up.
"""

from __future__ import annotations

import math
import re
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import accumulate
from random import Random
from typing import NamedTuple

from stages.common.errors import PipelineError
from stages.common.grammar import Argument, Grammar, Node, Option

_SLOT = re.compile(r"\{(=?)([a-z][a-z0-9_]*)\}")
REPEATS = "{="  # what a template has that repeats a value
_CHAINED = re.compile(r"[|;&<>{(](?![a-z])")
_HAS_OPTION = re.compile(r" [-/][A-Za-z-]")
_SLOT_CHARS = 8  # of a slot's value, about


class Draw(NamedTuple):
    """One correct line, and the template or the grammar place it came from (to limit repetition)."""

    line: str
    origin: str


class Weighted:
    """Draws keys in proportion to their weights, in the order given."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._keys = list(weights)
        self._cumulative = list(accumulate(weights.values()))
        self._total = self._cumulative[-1] if self._keys else 0.0

    def __bool__(self) -> bool:
        return bool(self._keys)

    def draw(self, rng: Random) -> str:
        """One key: the one that `rng.choices` draws, at half its cost."""
        return self._keys[bisect(self._cumulative, rng.random() * self._total, 0, len(self._keys) - 1)]


class Slots:
    """The values of slots in one shell."""

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        self._values = {name: tuple(map(str, choices)) for name, choices in values.items()}

    def fill(self, template: str, rng: Random) -> str:
        """The template with every known slot filled; a slot named twice gets two different values.

        `{=file}` is the value that `{file}` got before it: `mv {file} {=file}.bak` makes `mv a.txt a.txt.bak`.

        Raises:
            PipelineError: a `{=slot}` without its slot before it.
        """
        latest: dict[str, str] = {}
        used: set[str] = set()

        def value(match: re.Match[str]) -> str:
            again, name = match.groups()
            if again:
                if name not in latest:
                    raise PipelineError(f"{template}: {match.group()} repeats nothing; put {{{name}}} before it")
                return latest[name]
            if name not in self._values:
                return match.group()
            choices = self._values[name]
            fresh = [choice for choice in choices if choice not in used] if used else choices
            found = latest[name] = rng.choice(fresh or choices)
            used.add(found)
            return found

        return _SLOT.sub(value, template)


class Everyday:
    """Draws from the templates of one shell, each as often as its weight says."""

    def __init__(self, weights: Mapping[str, float], slots: Slots) -> None:
        self._weights, self._slots = weights, slots
        self._templates = Weighted(weights)

    @classmethod
    def by_tool(
        cls,
        templates: Mapping[str, Sequence[str]],
        tools: Mapping[str, float],
        shares: Mapping[str, Mapping[str, float]],
        slots: Slots,
        brevity: float = math.inf,
    ) -> Everyday:
        """A tool's templates share the tool's weight.

        One whose second word is a popular subcommand is drawn oftener, in proportion to that popularity; one that
        is longer by `brevity` characters less often by a factor of e.
        """
        weights: Counter[str] = Counter()
        for tool, lines in templates.items():
            of_tool = {
                line: _subcommand_share(line, shares.get(tool, {})) * _shortness(line, brevity) for line in lines
            }
            for line, weight in of_tool.items():
                weights[line] += tools.get(tool, 1.0) * weight / sum(of_tool.values())
        return cls(weights, slots)

    @classmethod
    def alike(cls, templates: Iterable[str], slots: Slots, brevity: float = math.inf) -> Everyday:
        """Templates that differ in nothing but their length."""
        return cls({line: _shortness(line, brevity) for line in templates}, slots)

    def __bool__(self) -> bool:
        return bool(self._templates)

    def only(self, fits: Callable[[str], bool]) -> Everyday:
        """The templates that fit, in the proportions they have."""
        return Everyday({line: weight for line, weight in self._weights.items() if fits(line)}, self._slots)

    def scaled(self, factor: Callable[[str], float]) -> Everyday:
        """The same templates, each as often as before times its factor."""
        return Everyday({line: weight * factor(line) for line, weight in self._weights.items()}, self._slots)

    def draw(self, rng: Random) -> Draw:
        """One line."""
        template = self._templates.draw(rng)
        return Draw(self._slots.fill(template, rng), template)


def is_chained(line: str) -> bool:
    """Whether a line, or the template of one, is more than one command."""
    return _CHAINED.search(line) is not None


def _shortness(line: str, brevity: float) -> float:
    return math.exp(-len(_SLOT.sub("x" * _SLOT_CHARS, line)) / brevity)


def _subcommand_share(line: str, shares: Mapping[str, float]) -> float:
    words = line.split()
    return shares.get(words[1], 1.0) if len(words) > 1 else 1.0


class FromGrammar:
    """Draws lines from the grammar of one shell."""

    def __init__(
        self,
        grammar: Grammar,
        weights: Mapping[str, float],
        subcommand_weights: Mapping[str, Mapping[str, float]],
        slots: Slots,
        table: Mapping,
        counts: Mapping[tuple[str, ...], int],
        bare: Container[tuple[str, ...]],
        singles: Mapping[str, Everyday],
    ) -> None:
        """`counts` tells in how many everyday lines an option stands: (tool, ..., option) -> lines.

        `bare`: what stands in one without an argument, (tool, ..., option), and with "" for no option.
        `singles`: the everyday lines of a tool that are one command.
        """
        self._grammar = grammar
        self._skip = frozenset(table["skip"])
        found = {tool: grammar.command(tool) for tool in weights if tool not in self._skip}
        nodes = {tool: node for tool, node in found.items() if node}
        self._tools = Weighted({tool: weights[tool] for tool in nodes})
        self._subcommands = {
            tool: Weighted({name: share for name, share in shares.items() if name in nodes[tool].subcommands})
            for tool, shares in subcommand_weights.items()
            if tool in nodes
        }
        self._slots = slots
        self._by_name = {name: slot for slot, names in table["slots"].items() for name in names}
        self._by_template = table["templates"]
        self._option_counts = table["option_counts"]
        self._plain_option = re.compile(table["plain_option"])
        self._everyday_bonus = table["everyday_bonus"]
        self._counts, self._bare = counts, bare
        self._singles = singles
        self._extended = frozenset(table["extended_sources"])
        self._common = frozenset(table["common_options"])
        self._never = frozenset(table["never_drawn"])
        self._options_after: dict[str, Weighted] = {}

    def draw(self, rng: Random) -> Draw | None:
        """One line of a tool drawn by popularity; None where its grammar asks for a value that no slot has."""
        tool = self._tools.draw(rng)
        node = self._grammar.command(tool)
        if node is None:
            return None
        if node.source in self._extended:
            return self._extend(tool, node, rng)
        words, path = [node.name], node.name
        shares = self._subcommands.get(tool)
        if node.subcommands:
            if not shares:
                return None
            name = shares.draw(rng)
            node = node.subcommands[name]
            words.append(name)
            path += " " + name
            if node.subcommands or path in self._skip:
                return None
        options = self._options(path, node, rng)
        arguments = self._arguments(node.arguments, self._may_be_bare(path, options), rng)
        if arguments is None:
            return None
        return Draw(" ".join([*words, *options, *arguments]), path)

    def _extend(self, tool: str, node: Node, rng: Random) -> Draw | None:
        """An everyday line with one more option: the grammar of such tools does not say what must be given."""
        usable = self._usable(node.name, node)
        if tool not in self._singles or not usable:
            return None
        draw = self._singles[tool].draw(rng)
        spelling = usable.draw(rng)
        if spelling in self._common or _HAS_OPTION.search(draw.line):
            return None  # two that exclude each other would look right
        words = [draw.line, spelling]
        if node.options[spelling].takes_value:
            words.append(self._value(node.options[spelling], rng))
        return Draw(" ".join(words), f"{draw.origin} {spelling}")

    def _options(self, path: str, node: Node, rng: Random) -> list[str]:
        count = rng.choices(range(len(self._option_counts)), weights=self._option_counts)[0]
        usable = self._usable(path, node)
        words: list[str] = []
        taken: set[tuple[str, ...]] = set()
        for _ in range(count if usable else 0):
            spelling = usable.draw(rng)
            option = node.options[spelling]
            if option.spellings in taken:
                continue
            taken.add(option.spellings)
            words.append(spelling)
            if option.takes_value:
                words.append(self._value(option, rng))
        return words

    def _usable(self, path: str, node: Node) -> Weighted:
        """The harmless options after `path`, those that everyday lines have far more often."""
        if path not in self._options_after:
            self._options_after[path] = Weighted(
                {
                    spelling: 1.0 + self._everyday_bonus * self._counts[(*path.split(), spelling.lower())]
                    for spelling, option in node.options.items()
                    if self._is_usable(spelling, option)
                }
            )
        return self._options_after[path]

    def _is_usable(self, spelling: str, option: Option) -> bool:
        if option.dangerous or option.optional_value or not self._plain_option.fullmatch(spelling):
            return False
        if not self._never.isdisjoint(option.spellings):
            return False
        if option.choices:
            return all(re.fullmatch(r"[\w.:-]+", choice) for choice in option.choices)
        return not option.takes_value or self._slot(option.argument, "") is not None

    def _value(self, option: Option, rng: Random) -> str:
        if option.choices:
            return rng.choice(option.choices)
        return self._slots.fill(self._slot(option.argument, "") or "", rng)

    def _may_be_bare(self, path: str, options: Sequence[str]) -> bool:
        """Whether people type it without an argument; grammars call arguments optional that nobody leaves out."""
        place = tuple(path.split())
        known = [option for option in options if self._counts[(*place, option.lower())]]
        return all((*place, option) in self._bare for option in known or [""])

    def _arguments(self, arguments: Sequence[Argument], may_be_bare: bool, rng: Random) -> list[str] | None:
        """Values for the first two arguments; None where one has to be given and no slot has values for it."""
        words: list[str] = []
        for argument in arguments[:2]:
            # what stands behind an argument that is left out would be read as that argument
            if argument.optional and (words or may_be_bare) and rng.random() < 0.6:
                break
            slot = self._slot(argument.name, argument.template)
            if slot is None:
                if argument.optional:
                    break
                return None
            words.append(self._slots.fill(slot, rng))
        return words if words or may_be_bare else None

    def _slot(self, name: str, template: str) -> str | None:
        """The template of the values for an argument of that name in the grammar, or of that kind."""
        return self._by_name.get(name.lower()) or self._by_template.get(template)
