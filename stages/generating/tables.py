"""Everything the generate stage reads, parsed once: grammars, everyday lines, slots, hand tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from stages.common.files import FROM_GIT, read_json, read_yaml
from stages.common.grammar import read_grammars, system_of

DATA = Path("data")

# Which parts of usage.yaml, slots.yaml and the hand tables a shell reads, later ones on top of earlier ones.
SECTIONS = {
    "bash": ("posix", "bash_zsh", "bash"),
    "zsh": ("posix", "bash_zsh", "zsh"),
    "fish": ("posix", "fish"),
    "tcsh": ("posix", "tcsh"),
    "powershell": ("powershell",),
    "cmd": ("cmd",),
}


@dataclass(frozen=True)
class Tables:
    """The parsed content of the files in `data/`."""

    grammars: Mapping[str, Mapping[str, Any]]
    popularity: Mapping[str, Any]
    usage: Mapping[str, Any]
    slots: Mapping[str, Any]
    mistakes: Mapping[str, Any]
    known_paths: Mapping[str, Any]
    wrong_options: Mapping[str, Any]
    wrong_subcommands: Mapping[str, Any]
    sampling: Mapping[str, Any]
    slips: Mapping[str, Any]
    chains: Mapping[str, Any]
    requests: Sequence[Mapping[str, Any]]
    tool_results: Mapping[str, Any]
    unfixable: Mapping[str, Any]


def read_tables(data: Path = DATA) -> Tables:
    """Read all tables; a missing or malformed one is a `PipelineError`."""
    names = tuple(field.name for field in fields(Tables) if field.name not in ("grammars", "popularity"))
    return Tables(
        grammars=read_grammars(data / "grammar"),
        popularity=read_json(data / "popularity.json", remedy=FROM_GIT),
        **{name: read_yaml(data / f"{name}.yaml") for name in names},
    )


def merged(table: Mapping[str, Any], shell: str) -> dict[str, Any]:
    """The parts of a table that a shell reads, the special ones on top of the common ones."""
    found: dict[str, Any] = {}
    for section in SECTIONS[shell]:
        found |= table.get(section) or {}
    return found


def merged_lists(table: Mapping[str, Any], shell: str) -> dict[str, list[str]]:
    """As `merged`, for a table of lists: a tool's lists of several parts follow each other."""
    found: dict[str, list[str]] = {}
    for section in SECTIONS[shell]:
        for tool, lines in (table.get(section) or {}).items():
            found.setdefault(tool, []).extend(lines)
    return found


def everyday_lines(tables: Tables, shell: str) -> dict[str, list[str]]:
    """The templates of a shell by tool; the Windows shells also get those of the tools that run everywhere."""
    lines = merged_lists(tables.usage, shell)
    for tool in _portable_tools(tables, shell):
        unfit = re.compile(tables.sampling["portable"]["unfit"])
        fit = [line for line in tables.usage["posix"].get(tool, ()) if not unfit.search(line)]
        if fit:
            lines.setdefault(tool, []).extend(fit)
    return lines


def chained_lines(tables: Tables, shell: str) -> list[str]:
    """The templates of chained lines of a shell."""
    return [line for section in SECTIONS[shell] for line in tables.chains.get(section) or ()]


def command_weights(
    tables: Tables, shell: str, power: float = 1.0
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The popularity of a shell's commands, to a `power`, and that of the subcommands where there are weights.

    In the Windows shells the tools that run everywhere have the share of `sampling.yaml` together.
    """
    foreign = foreign_commands(tables, shell)
    entries = {tool: entry for tool, entry in merged(tables.popularity, shell).items() if tool not in foreign}
    weights = {tool: _weight(entry) ** power for tool, entry in entries.items()}
    portable = {tool: tables.popularity["posix"].get(tool, 1.0) for tool in _portable_tools(tables, shell)}
    if portable:
        share = tables.sampling["portable"]["share"][shell]
        total = sum(_weight(entry) ** power for entry in portable.values())
        own = sum(weight for tool, weight in weights.items() if tool not in portable)
        scale = own / (1 - share) * share / total
        weights |= {tool: _weight(entry) ** power * scale for tool, entry in portable.items()}
    entries = portable | entries
    shares = {tool: entry["s"] for tool, entry in entries.items() if isinstance(entry, dict) and entry.get("s")}
    return weights, shares


def foreign_commands(tables: Tables, shell: str) -> set[str]:
    """The commands that this shell may lack, such as fish's `string`.

    They are those without an everyday line in it that have one in other shells, or that only the hand-made
    grammar knows, in which the builtins of all shells are.
    """
    anywhere = {tool for section in tables.usage.values() for tool in section or ()}
    hand = tables.grammars["hand"].keys() - tables.grammars["posix"].keys()
    return (anywhere | hand) - merged_lists(tables.usage, shell).keys()


def _weight(entry: float | Mapping[str, Any]) -> float:
    return float(entry["w"] if isinstance(entry, Mapping) else entry)


def _portable_tools(tables: Tables, shell: str) -> tuple[str, ...]:
    return () if system_of(shell) == "posix" else tuple(tables.sampling["portable"]["tools"])
