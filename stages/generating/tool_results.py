"""Simulated results of the tools that the client `wit` runs before it asks: useful, empty or misleading.

What tools say, and how often, is in `data/tool_results.yaml`; what commands there are is in the grammar.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from rapidfuzz import process
from rapidfuzz.distance import OSA

from stages.common.chat import TOOLS, ToolResult, shown_output
from stages.common.grammar import Grammar, Node, system_of
from stages.common.lines import COMMAND, Word, split
from stages.generating.candidates import Candidates
from stages.generating.commands import Weighted

_NAME = re.compile(r"[^\W_][\w.+-]*")
_OPTIONS_SHOWN = 12
_USEFUL, _MISLEADING, _EMPTY = "useful", "misleading", "empty"


class ToolResults:
    """Draws what tools say about the lines of one shell."""

    def __init__(self, table: Mapping[str, Any], grammar: Grammar, commands: Candidates) -> None:
        """`commands`: those of the shell, with their popularity."""
        self._table, self._grammar, self._commands = table, grammar, commands
        self._system = system_of(grammar.shell)
        self._environment: Mapping[str, str] = table["environment"][self._system]
        self._counts = Weighted({str(n): weight for n, weight in enumerate(table["counts"], start=1)})
        useful = 1 - table["empty_share"] - table["misleading_share"]
        self._worth = Weighted(
            {_USEFUL: useful, _EMPTY: table["empty_share"], _MISLEADING: table["misleading_share"]}
        )
        self._popular = Weighted(
            {name: commands.weights[name] for name in commands.names if grammar.command(name)}
        )
        self._says = {
            "which_binary": self._which,
            "list_similar": self._similar,
            "help_output": self._help,
            "man_page": self._manual,
            "get_env_var": self._variable,
        }

    def draw(self, typed: str, words: Sequence[Word], rng: Random) -> tuple[ToolResult, ...]:
        """The results beside a typed line whose answer has these words, in the order of `TOOLS`; often none."""
        if rng.random() >= self._table["with_results_share"]:
            return ()
        asked = self._asked(typed, words, rng)
        chosen: list[str] = []
        for _ in range(min(int(self._counts.draw(rng)), len(asked))):
            left = [tool for tool in asked if tool not in chosen]
            chosen += rng.choices(left, weights=[self._table["weights"][tool] for tool in left])
        results = []
        for tool in sorted(chosen, key=TOOLS.index):
            output = self._says[tool](asked[tool], self._worth.draw(rng), words, rng)
            results.append(ToolResult(tool, asked[tool], shown_output(output)))
        return tuple(results)

    def _asked(self, typed: str, words: Sequence[Word], rng: Random) -> dict[str, str]:
        """Which tools make sense here, and of what each would be asked."""
        names = (found.group() for text, *_ in split(typed) if (found := _NAME.match(text)))
        name = next(names, "")
        path = max((word.nodes for word in words if word.nodes), key=len, default=())
        asked = {"get_env_var": rng.choice(list(self._environment))}
        if name:
            asked |= {"which_binary": name, "list_similar": name}
        if path:
            asked["help_output"] = " ".join(node.name for node in path)
            if self._system == "posix":
                asked["man_page"] = path[0].name
        return asked

    def _which(self, name: str, worth: str, words: Sequence[Word], rng: Random) -> str:
        node = self._grammar.command(name)
        if worth == _EMPTY or (node is None) == (worth == _USEFUL):
            return rng.choice(self._table["not_found"][self._system]).format(name=name)
        kind = "cmdlet" if node is not None and node.source == "psscriptanalyzer" else self._system
        shown = rng.choice(self._table["found"][kind])
        return shown.format(name=name, folder=rng.choice(self._table["folders"]))

    def _similar(self, name: str, worth: str, words: Sequence[Word], rng: Random) -> str:
        if worth == _EMPTY:
            return rng.choice(self._table["nothing"])
        edits, most = self._table["similar_edits"], self._table["similar_names"]
        folded = name.lower() if self._grammar.fold else name
        near = process.extract(folded, self._commands.names, scorer=OSA.distance, score_cutoff=edits, limit=None)
        right = {word.text.lower() for word in words if word.role == COMMAND}
        ordered = sorted(near, key=lambda found: (found[1], -self._commands.weights[found[0]], found[0]))
        shown = [found for found, *_ in ordered if worth == _USEFUL or found.lower() not in right][:most]
        return ", ".join(self._spelled(found) for found in shown) or rng.choice(self._table["nothing"])

    def _spelled(self, name: str) -> str:
        node = self._grammar.command(name)
        return node.name if node else name

    def _help(self, path: str, worth: str, words: Sequence[Word], rng: Random) -> str:
        node = self._node(path) if worth == _USEFUL else None
        if worth == _EMPTY:
            return rng.choice(self._table["no_help"]).format(path=path)
        if node is None:
            path = self._popular.draw(rng)
            node = self._node(path)
        return self._help_of(path, node, rng)

    def _help_of(self, path: str, node: Node | None, rng: Random) -> str:
        if node is None:
            return rng.choice(self._table["no_help"]).format(path=path)
        of_group = bool(node.subcommands)
        template = rng.choice(self._table["help_of_group"] if of_group else self._table["help"][self._system])
        return template.format(
            path=path,
            description=node.description,
            options=self._options(node),
            subcommands=" ".join(list(node.subcommands)[:_OPTIONS_SHOWN]),
        )

    def _node(self, path: str) -> Node | None:
        name, *subcommands = path.split(" ")
        node = self._grammar.command(name)
        for subcommand in subcommands:
            node = node.subcommand(subcommand, fold=self._grammar.fold) if node else None
        return node

    def _options(self, node: Node) -> str:
        shown = []
        for option in list(dict.fromkeys(node.options.values()))[:_OPTIONS_SHOWN]:
            value = self._table["value"].format(value=option.argument or "value") if option.takes_value else ""
            spellings = ", ".join(option.spellings) + value
            shown.append(self._table["option"][self._system].format(spellings=spellings))
        return " ".join(shown)

    def _manual(self, name: str, worth: str, words: Sequence[Word], rng: Random) -> str:
        if worth == _EMPTY:
            return rng.choice(self._table["no_man"]).format(name=name)
        shown = name if worth == _USEFUL else self._popular.draw(rng)
        node = self._grammar.command(shown)
        if node is None:
            return rng.choice(self._table["no_man"]).format(name=name)
        return rng.choice(self._table["man"]).format(
            name=shown, upper=shown.upper(), description=node.description, options=self._options(node)
        )

    def _variable(self, name: str, worth: str, words: Sequence[Word], rng: Random) -> str:
        return self._environment[name] if worth == _USEFUL else rng.choice(self._table["unset"])
