"""Simulated results of the tools that the client `wit` runs before it asks: useful, empty or misleading.

A client has the typed line alone, so no tool is asked of what only the answer tells: it is asked of the typed
command, or, where there is no such command, of one that `list_similar` names. What is installed is drawn once a
row, so that its results agree. What tools say, and how often, is in `data/tool_results.yaml`; what commands there
are is in the grammar.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from rapidfuzz import process
from rapidfuzz.distance import OSA

from stages.common.chat import OUTPUT_CHARS, TOOLS, ToolResult, shown_output
from stages.common.grammar import Grammar, Node, Option, system_of
from stages.common.lines import COMMAND, OPERATOR, SUBCOMMAND, VALUE, Word, annotate
from stages.generating.candidates import Candidates
from stages.generating.commands import Weighted
from stages.generating.sources import CommandPopularity
from stages.generating.tables import Tables, foreign_commands

Popularity = Callable[[tuple[str, ...], str], float]
"""How often a word follows a path such as ("git", "commit")."""
_NAME = re.compile(r"[^\W_][\w.+-]*")
_PLAIN_WORD = re.compile(r"[a-z][a-z-]+")
_BUNDLE = re.compile(r"-[A-Za-z]{2,}")


@dataclass(frozen=True)
class Scene:
    """What the client finds where a line was typed, and what it asks of."""

    name: str
    """A typed command, one that there is not before others; empty where no command can be made out."""
    is_installed: bool
    near: tuple[str, ...]
    """What `list_similar` names, in its order."""
    path: tuple[str, ...]
    """What help is asked of: a command and its subcommands, the last of which may not exist."""


class ToolResults:
    """Draws what tools say about the lines of one shell."""

    def __init__(
        self,
        table: Mapping[str, Any],
        grammar: Grammar,
        commands: Candidates,
        popularity: Popularity,
        added: frozenset[str],
    ) -> None:
        """`commands`: those of the shell, with their popularity; `added`: what no system has from the start."""
        self._table, self._grammar, self._commands, self._popularity = table, grammar, commands, popularity
        self._system = system_of(grammar.shell)
        self._added = added | frozenset(table["added"])
        self._built_in = frozenset(table["built_in"].get(grammar.shell, table["built_in"][self._system]))
        self._environment: Mapping[str, Sequence[str]] = table["environment"][self._system]
        self._variable_in = re.compile(table["variable_in"][self._system])
        self._counts = Weighted({str(n): weight for n, weight in enumerate(table["counts"], start=1)})
        self._orders = Weighted(table["orders"])
        self._told_of: dict[tuple[int, str], Mapping[str, str]] = {}

    def draw(self, typed: str, words: Sequence[Word], rng: Random) -> tuple[ToolResult, ...]:
        """The results beside a typed line whose answer has these words, in the order of `TOOLS`; often none."""
        if rng.random() >= self._table["with_results_share"]:
            return ()
        scene = self._scene(typed, words, rng)
        asked = self._asked(scene, typed, rng)
        chosen: list[str] = []
        for _ in range(min(int(self._counts.draw(rng)), len(asked))):
            left = [tool for tool in asked if tool not in chosen]
            chosen += rng.choices(left, weights=[self._table["weights"][tool] for tool in left])
        says = {
            "which_binary": lambda: self._which(scene, rng),
            "list_similar": lambda: ", ".join(scene.near),
            "help_output": lambda: self._help(scene, rng),
            "man_page": lambda: self._manual(scene, rng),
            "get_env_var": lambda: self._variable(asked["get_env_var"], rng),
        }
        results = []
        for tool in sorted(chosen, key=TOOLS.index):
            output = "" if rng.random() < self._table["empty_share"] else says[tool]()
            results.append(
                ToolResult(tool, asked[tool], shown_output(output or rng.choice(self._table["nothing"])))
            )
        return tuple(results)

    def _asked(self, scene: Scene, typed: str, rng: Random) -> dict[str, str]:
        """Which tools make sense here, and of what each is asked."""
        asked = {}
        if scene.name:
            asked |= {"which_binary": scene.name, "list_similar": scene.name, "help_output": " ".join(scene.path)}
            if self._system == "posix":
                asked["man_page"] = scene.path[0]
        named = self._variable_in.search(typed)
        if named:
            asked["get_env_var"] = named.group(named.lastindex)
        elif not asked or rng.random() < self._table["idle_variable_share"]:
            asked["get_env_var"] = rng.choice(list(self._environment))
        return asked

    def _scene(self, typed: str, words: Sequence[Word], rng: Random) -> Scene:
        line = annotate(typed, self._grammar)
        named = [word for word in line if word.role == COMMAND and _NAME.fullmatch(word.text)]
        named = [word for word in named if word.text not in self._grammar.wrappers.names] or named
        command = next((word for word in named if not self._is_known(word.text)), named[0] if named else None)
        if command is None:
            return Scene("", False, (), ())
        name, misled = command.text, rng.random() < self._table["misleading_share"]
        right = {word.text.lower() for word in words if word.role == COMMAND} if misled else set()
        near = self._near(name, right, rng)
        behind = self._behind(line, command)
        if self._is_installed(name, rng):
            return Scene(name, True, near, (name, *self._subcommands(name, behind, rng)))
        guesses = near[1:] if misled else near[:1]
        if guesses and rng.random() < self._table["follow_up_share"]:
            guess = rng.choice(guesses)
            return Scene(name, False, near, (guess, *self._subcommands(guess, behind, rng)))
        return Scene(name, False, near, (name,))

    def _is_known(self, name: str) -> bool:
        return name in self._commands

    def _is_installed(self, name: str, rng: Random) -> bool:
        """Whether it is there: what the shell knows nearly always, what it does not hardly ever."""
        if not self._is_known(name):
            return rng.random() < self._table["stray_share"]
        return name not in self._added or rng.random() >= self._table["absent_share"]

    @staticmethod
    def _behind(line: Sequence[Word], command: Word) -> list[Word]:
        """The words behind a command, up to the next one."""
        behind: list[Word] = []
        for word in line[line.index(command) + 1 :]:
            if word.role == OPERATOR:
                break
            behind.append(word)
        return behind

    def _subcommands(self, name: str, behind: Sequence[Word], rng: Random) -> Iterator[str]:
        """The typed words that help on `name` would be asked with: its subcommands, at times an unknown one."""
        node = self._grammar.command(name)
        for word in behind:
            if node is None or not node.subcommands or word.role not in (SUBCOMMAND, VALUE):
                return
            child = node.subcommand(word.text, fold=self._grammar.fold)
            if child is None:
                if _PLAIN_WORD.fullmatch(word.text) and rng.random() < self._table["unknown_subcommand_share"]:
                    yield word.text
                return
            yield word.text
            node = child

    def _near(self, name: str, left_out: set[str], rng: Random) -> tuple[str, ...]:
        """The commands spelled much like `name`, in one of several orders, since clients differ."""
        order = self._orders.draw(rng)
        if not name.isascii():
            return ()
        folded = name.lower() if self._grammar.fold else name
        edits = max(1, len(name) // self._table["letters_per_edit"])
        found = process.extract(folded, self._commands.names, scorer=OSA.distance, score_cutoff=edits, limit=None)
        weights = self._commands.weights
        keys: dict[str, Callable[[tuple[str, float, int]], tuple]] = {
            "distance": lambda item: (item[1], -weights[item[0]], item[0]),
            "alphabet": lambda item: (item[0],),
            "popularity": lambda item: (-weights[item[0]], item[0]),
        }
        ordered = (self._spelled(item[0]) for item in sorted(found, key=keys[order]))
        shown = [each for each in ordered if each.lower() not in left_out]
        return tuple(shown[: self._table["similar_names"]])

    def _spelled(self, name: str) -> str:
        node = self._grammar.command(name)
        return node.name if node else name

    def _which(self, scene: Scene, rng: Random) -> str:
        return self._found(scene.name, rng) if scene.is_installed else self._not_found(scene.name, rng)

    def _not_found(self, name: str, rng: Random) -> str:
        return rng.choice(self._table["not_found"][self._system]).format(name=name)

    def _found(self, name: str, rng: Random) -> str:
        """Where a command is, in the words of `which`, `where` and `Get-Command`."""
        table, node = self._table["found"], self._grammar.command(name)
        target = self._grammar.aliases.get(name.lower())
        if target:
            return rng.choice(table["alias"]).format(name=name, target=target)
        if node is not None and node.source == "psscriptanalyzer":
            return rng.choice(table["cmdlet"]).format(name=node.name)
        if name.lower() in self._built_in:
            says = table["built_in"][self._system]
            return rng.choice(says).format(name=name) if says else self._not_found(name, rng)
        is_added = name in self._added or not self._is_known(name)
        if self._system == "posix":
            return rng.choice(table["added" if is_added else "system"]).format(name=name)
        if name.lower() in table["windows_places"]:
            return table["windows_places"][name.lower()]
        return rng.choice(table["windows_added" if is_added else "windows_system"]).format(name=name)

    def _help(self, scene: Scene, rng: Random) -> str:
        path = " ".join(scene.path)
        if self._is_missing(scene):
            return rng.choice(self._table["no_command"][self._system]).format(name=scene.path[0])
        nodes = list(self._walk(scene.path))
        if not nodes:
            return ""
        if len(nodes) < len(scene.path):
            says = rng.choice(self._table["no_subcommand"])
            return says.format(tool=" ".join(scene.path[:-1]), word=scene.path[-1])
        node = nodes[-1]
        if node.source == "psscriptanalyzer":
            path = self._grammar.aliases.get(path.lower(), path)
        return self._fill(self._help_templates(scene.path[0], node), node, rng, path=path)

    @staticmethod
    def _is_missing(scene: Scene) -> bool:
        """Whether help is asked of a command that is not there; a guess out of `list_similar` is."""
        return not scene.is_installed and scene.path[0] == scene.name

    def _help_templates(self, tool: str, node: Node) -> Sequence[str]:
        """The forms of help of a tool; none where the grammar is that of a namesake on another system."""
        if node.source == "psscriptanalyzer":
            return self._table["help"]["powershell"]
        if node.source == "cmd":
            return self._table["help"]["cmd"]
        if self._system != "posix" and tool not in self._added:
            return ()
        return self._table["help_of_group" if node.subcommands else "help"]["posix"]

    def _walk(self, path: Sequence[str]) -> Iterator[Node]:
        """The nodes of a path as far as the grammar has them."""
        node = self._grammar.command(path[0])
        for word in (*path[1:], None):
            if node is None:
                return
            yield node
            node = node.subcommand(word, fold=self._grammar.fold) if word else None

    def _manual(self, scene: Scene, rng: Random) -> str:
        name = scene.path[0]
        node = self._grammar.command(name)
        if node is None or self._is_missing(scene):
            return rng.choice(self._table["no_man"]).format(name=name)
        return self._fill(self._table["man"], node, rng, name=name, upper=name.upper())

    def _fill(self, templates: Sequence[str], node: Node, rng: Random, **names: str) -> str:
        """One of the templates, with what the grammar tells of the node; empty where it does not tell enough."""
        told = self._told(node, names.get("path", ""))
        fit = [each for each in templates if all(told[key] for key in told if f"{{{key}}}" in each)]
        return rng.choice(fit).format(**told, **names) if fit else ""

    def _told(self, node: Node, path: str) -> Mapping[str, str]:
        """What the grammar tells of a node that stands at a path, worked out once."""
        key = (id(node), path)  # the grammar keeps its nodes
        if key not in self._told_of:
            self._told_of[key] = {
                "description": node.description,
                "options": self._options(node),
                "subcommands": self._subcommands_of(node, path.split(" ")),
            }
        return self._told_of[key]

    def _subcommands_of(self, node: Node, path: Sequence[str]) -> str:
        """The subcommands, the popular ones first, other names of the same left out."""
        names = {}
        for name, child in node.subcommands.items():
            names.setdefault((child.description, tuple(child.options)) if child.description else name, name)
        return " ".join(sorted(names.values(), key=lambda name: -self._popularity(tuple(path), name)))

    def _options(self, node: Node) -> str:
        """The options as help shows them, each once, as many as are seen before the output is cut."""
        options = list(dict.fromkeys(node.options.values()))
        shown, length = [], 0
        for option in options:
            if not self._is_shown_with_another(option, node, options):
                shown.append(f"[{', '.join(option.spellings)}{self._value(option)}]")
                length += len(shown[-1])
            if length > OUTPUT_CHARS:
                break
        return " ".join(shown)

    def _is_shown_with_another(self, option: Option, node: Node, options: Sequence[Option]) -> bool:
        """Whether it is a bundle of one-letter options, or another option has its spellings and more."""
        only = option.spellings[0]
        if len(option.spellings) > 1:
            return False
        if _BUNDLE.fullmatch(only) and all(f"-{letter}" in node.options for letter in only[1:]):
            return True
        return any(only in other.spellings for other in options if len(other.spellings) > 1)

    def _value(self, option: Option) -> str:
        return self._table["value"].format(value=option.argument or "value") if option.takes_value else ""

    def _variable(self, name: str, rng: Random) -> str:
        values = self._environment.get(name) or self._environment.get(name.upper(), ())
        if not values or (name in self._table["may_be_unset"] and rng.random() < self._table["unset_share"]):
            return rng.choice(self._table["unset"])
        return rng.choice(values).format(shell=self._grammar.shell)


def tool_results(grammar: Grammar, tables: Tables, popularity: CommandPopularity) -> ToolResults:
    """What tools say in one shell: of its own commands, not of those that only other shells have."""
    portable = frozenset(tables.sampling["portable"]["tools"])
    foreign = foreign_commands(tables, grammar.shell) - portable
    own = {name: weight for name, weight in popularity.of_commands().items() if name not in foreign}
    commands = Candidates.of(own, fold=grammar.fold)
    return ToolResults(tables.tool_results, grammar, commands, popularity.after, portable)
