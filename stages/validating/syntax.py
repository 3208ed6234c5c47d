"""Whether an answer parses in its shell: by tree-sitter where PyPI has a grammar, else by quotes and operators."""

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
    """False where the shell's grammar refuses the line, known false alarms apart.

    Of shells without a grammar only the quotes and the places of operators are looked at.
    """
    if shell in limits().without_grammar:
        quoting, refused = limits().without_grammar[shell]
        is_open = any(found["open"] for found in quoting.finditer(command))
        return not is_open and refused.search(quoting.sub("x", command)) is None
    if shell not in _GRAMMARS or not _parser(shell).parse(f"{command}\n".encode()).root_node.has_error:
        return True
    return bool(limits().syntax_allow[shell].search(command))
