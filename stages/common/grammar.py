"""The command grammars of `data/grammar/` as one tree of nodes a shell.

`posix.json`, `hand.json` and `cmd.json` hold commands with options, subcommands and arguments (short keys:
`d` description, `o` options, `s` subcommands, `a` arguments, `n` names); `powershell.json` holds cmdlets with
parameters and their types. Here they become the same thing: a `Node` with options and subcommands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stages.common.files import FROM_GIT, read_json
from stages.common.words import Wrappers, wrappers

GRAMMARS = ("posix", "hand", "powershell", "cmd")


def system_of(shell: str) -> str:
    """The family of shells that share grammar, paths, mistakes and danger: posix, powershell or cmd."""
    return shell if shell in ("powershell", "cmd") else "posix"


def read_grammars(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The parsed files of `data/grammar/`: name without ending -> content; a bad one is a `PipelineError`."""
    return {name: read_json(folder / f"{name}.json", remedy=FROM_GIT) for name in GRAMMARS}


@dataclass(frozen=True)
class Option:
    """One spelling of an option; `spellings` are all of them, `argument` the name of its value or empty."""

    spellings: tuple[str, ...]
    takes_value: bool
    optional_value: bool
    argument: str
    choices: tuple[str, ...]
    dangerous: bool


@dataclass(frozen=True)
class Argument:
    """A positional argument of a command: its name in the grammar, whether it may be left out."""

    name: str
    template: str
    choices: tuple[str, ...]
    optional: bool


@dataclass(frozen=True)
class Node:
    """A command or a subcommand."""

    name: str
    options: Mapping[str, Option] = field(default_factory=dict)
    subcommands: Mapping[str, Node] = field(default_factory=dict)
    arguments: tuple[Argument, ...] = ()
    source: str = ""
    description: str = ""
    folded_options: Mapping[str, Option] = field(default_factory=dict)

    def option(self, spelling: str, *, fold: bool) -> Option | None:
        """The option spelled so; with `fold` in any case."""
        if fold:
            return self.options.get(spelling) or self.folded_options.get(spelling.lower())
        return self.options.get(spelling)

    def subcommand(self, name: str, *, fold: bool) -> Node | None:
        """The subcommand of that name."""
        return self.subcommands.get(name.lower() if fold else name)

    def without_subcommands(self) -> Node:
        """This node once a value has stood where a subcommand could: later words are no subcommands."""
        return replace(self, subcommands={})


@dataclass(frozen=True)
class Grammar:
    """What one shell knows: commands, how options look, whether case matters."""

    shell: str
    commands: Mapping[str, Node]
    wrappers: Wrappers
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Of PowerShell's aliases in lower case, the cmdlets that they stand for."""

    @property
    def fold(self) -> bool:
        """Whether commands and options are the same in any case."""
        return self.shell in ("powershell", "cmd")

    def command(self, word: str) -> Node | None:
        """The command of that name or alias; `.exe` may follow it in the Windows shells."""
        if not self.fold:
            return self.commands.get(word)
        key = word.lower().removesuffix(".exe")
        return self.commands.get(key)

    def is_option(self, word: str) -> bool:
        """Whether a word looks like an option: `-x`, `--x`, in cmd also `/x`."""
        if word.startswith("-") and len(word) > 1:
            return not word[1:].replace(".", "").isdigit()
        return self.shell == "cmd" and word.startswith("/") and len(word) > 1

    def value_separator(self, word: str) -> str:
        """What stands between an option and a value in the same word."""
        return ":" if word.startswith("/") or (self.shell == "powershell" and not word.startswith("--")) else "="


def build_grammars(shells: Iterable[str], tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Grammar]:
    """The grammars of shells out of the parsed files of `data/grammar/` (name without ending -> content)."""
    everywhere = _commands_everywhere(tables)
    return {
        shell: Grammar(
            shell,
            everywhere | _commands_of(shell, tables),
            wrappers(system_of(shell)),
            {alias.lower(): name for alias, name in tables["powershell"]["aliases"].items()}
            if shell == "powershell"
            else {},
        )
        for shell in shells
    }


def _commands_everywhere(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Node]:
    """The commands of POSIX systems, of which many run on Windows too."""
    fig, hand = (dict(_specs(tables[table])) for table in ("posix", "hand"))
    commands = {name: _node(name, spec, "fig") for name, spec in fig.items() if "like" not in spec}
    for name, spec in hand.items():
        if "like" not in spec:
            node = _node(name, spec, "hand")
            commands[name] = _merged(commands[name], node) if name in commands else node
    for name, spec in (fig | hand).items():
        if "like" in spec:
            commands[name] = replace(commands[spec["like"]], name=name)
    return commands


def _commands_of(shell: str, tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Node]:
    """The commands that a Windows shell has besides, or instead."""
    if shell == "powershell":
        return _cmdlets(tables["powershell"])
    commands: dict[str, Node] = {}
    if shell != "cmd":
        return commands
    for name, spec in _specs(tables["cmd"]):
        node = _node(name, spec, "cmd", fold=True)
        for spelling in (name, *spec.get("alias", ())):
            commands[spelling.lower()] = replace(node, name=spelling)
    return commands


def _specs(table: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The entries of a grammar file without its notes, whose names begin with `_`."""
    return ((name, spec) for name, spec in table.items() if not name.startswith("_"))


def _merged(first: Node, second: Node) -> Node:
    """The sum of two grammars of one command; the first one's entries win."""
    subcommands = {**second.subcommands, **first.subcommands}
    for name in first.subcommands.keys() & second.subcommands.keys():
        subcommands[name] = _merged(first.subcommands[name], second.subcommands[name])
    return replace(
        first,
        options={**second.options, **first.options},
        subcommands=subcommands,
        arguments=first.arguments or second.arguments,
        folded_options={**second.folded_options, **first.folded_options},
    )


def _names(spec: Mapping[str, Any]) -> list[str]:
    names = spec["n"]
    return [names] if isinstance(names, str) else list(names)


def _options(specs: list[Mapping[str, Any]]) -> dict[str, Option]:
    options: dict[str, Option] = {}
    for spec in specs:
        arguments = spec.get("a") or []
        first = arguments[0] if arguments else {}
        option = Option(
            spellings=tuple(_names(spec)),
            takes_value=bool(arguments) and not first.get("opt"),
            optional_value=bool(first.get("opt")),
            argument=str(first.get("n") or ""),
            choices=tuple(str(choice) for choice in first.get("e") or ()),
            dangerous=bool(spec.get("danger")),
        )
        for spelling in option.spellings:
            options.setdefault(spelling, option)
    return options


def _node(name: str, spec: Mapping[str, Any], source: str, *, fold: bool = False) -> Node:
    subcommands: dict[str, Node] = {}
    for child in spec.get("s") or []:
        for child_name in _names(child):
            subcommands[child_name.lower() if fold else child_name] = _node(child_name, child, source, fold=fold)
    options = _options(spec.get("o") or [])
    return Node(
        name=name,
        options=options,
        subcommands=subcommands,
        arguments=tuple(_arguments(spec.get("a") or [])),
        source=source,
        description=str(spec.get("d") or ""),
        folded_options={spelling.lower(): option for spelling, option in options.items()},
    )


def _arguments(specs: list[Mapping[str, Any]]) -> Iterator[Argument]:
    for spec in specs:
        yield Argument(
            name=str(spec.get("n") or ""),
            template=str(spec.get("t") or ""),
            choices=tuple(str(choice) for choice in spec.get("e") or ()),
            optional=bool(spec.get("opt")),
        )


def _cmdlets(table: Mapping[str, Any]) -> dict[str, Node]:
    """Cmdlets and their aliases by lower-case name; an alias is a command with the cmdlet's parameters."""
    common = {f"-{name}": kind for name, kind in table["common"]["p"].items()}
    nodes: dict[str, Node] = {}
    for name, spec in table["commands"].items():
        kinds = {f"-{parameter}": kind for parameter, kind in spec.get("p", {}).items()} | common
        for alias, parameter in spec.get("a", {}).items():
            kinds.setdefault(f"-{alias}", kinds.get(f"-{parameter}", "Object"))
        options = {
            spelling: Option((spelling,), kind != "Switch", False, spelling[1:], (), False)
            for spelling, kind in kinds.items()
        }
        folded = {spelling.lower(): option for spelling, option in options.items()}
        nodes[name.lower()] = Node(name, options, source="psscriptanalyzer", folded_options=folded)
    for alias, target in table["aliases"].items():
        if target.lower() in nodes:
            nodes[alias.lower()] = replace(nodes[target.lower()], name=alias)
    return nodes
