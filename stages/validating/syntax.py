"""Whether an answer parses in its shell, by tree-sitter, for the shells that have a grammar on PyPI."""

from __future__ import annotations

from functools import cache

import tree_sitter_bash
import tree_sitter_pwsh
import tree_sitter_zsh
from tree_sitter import Language, Parser

from stages.validating.limits import limits

_GRAMMARS = {"bash": tree_sitter_bash, "zsh": tree_sitter_zsh, "powershell": tree_sitter_pwsh}


@cache
def _parser(shell: str) -> Parser:
    return Parser(Language(_GRAMMARS[shell].language()))


def parses(shell: str, command: str) -> bool:
    """False where the shell's grammar refuses the line; True for shells without one and for known false alarms."""
    if shell not in _GRAMMARS or not _parser(shell).parse(f"{command}\n".encode()).root_node.has_error:
        return True
    return bool(limits().syntax_allow[shell].search(command))
