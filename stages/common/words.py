"""A command line as words and as simple commands, without expanding anything; close enough for all six shells.

Quotes stay on their words. Operators, redirections, parentheses and the braces of a block are words of their own.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

from stages.common.files import read_yaml

_QUOTED = r"""'[^']*'|"(?:\\.|[^"\\])*\""""
_WORD = re.compile(
    rf"""
    \d*>&\d? | \d*>>? | <<?<? | &&|\|\||\|&|[|;&] | \$\(|[()`]    # redirections and operators
    | [{{}}](?=[\s;]|$)                                          # the braces of a block, not of an expansion
    | (?: {_QUOTED} | \\. | [^\s'"|;&<>()`] )+ | ['"]            # words; a quote without its partner
    """,
    re.VERBOSE,
)
_MAYBE_OPERATOR = re.compile(r"[|;&<>]|\$\(")
_OPERATOR = re.compile(r"\d*[|;&<>]+\d?|\$\(")
_SEPARATORS = frozenset(["&&", "||", "|", "|&", ";", "&", "$(", "(", ")", "`", "{", "}"])
WRAPPERS = Path("data/wrappers.yaml")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_MAY_TAKE_A_VALUE = re.compile(r"-[A-Za-z]|--[a-z-]+")
_QUOTED_WHOLE = re.compile(rf"{_QUOTED}")


@dataclass(frozen=True)
class Wrappers:
    """What a command may follow: commands that run another one, and keywords."""

    names: frozenset[str]
    valued: frozenset[str]
    """Those of them between which and the command stands a value."""
    caller_options: frozenset[str] = frozenset()
    """Options behind which a command stands."""
    conditions: frozenset[str] = frozenset()
    """Words of cmd between `if` and a value, behind which a command stands."""


@cache
def wrappers(system: str | None = None) -> Wrappers:
    """Those of a system (posix, powershell, cmd); where none is given all that may run another command."""
    content = read_yaml(WRAPPERS)
    by_system, valued = content["wrappers"], frozenset(content["valued"])
    if system is not None:
        names = frozenset(by_system[system])
        return Wrappers(names, names & valued)
    names = frozenset(chain(*by_system.values(), content["callers"]))
    return Wrappers(names, valued, frozenset(content["caller_options"]), frozenset(content["conditions"]))


def blanks_once(command: str) -> str:
    """The line without blanks around it, each run of blanks in it counted once."""
    return " ".join(command.split())


def words(command: str) -> list[str]:
    """The words of a command line, operators among them, quotes kept."""
    return _WORD.findall(command)


def operators(command: str) -> set[str]:
    """The operators, redirections and substitutions of a line, each once."""
    if _MAYBE_OPERATOR.search(command) is None:  # most lines, at the cost of one search
        return set()
    return {word for word in words(command) if _OPERATOR.fullmatch(word)}


def unquote(word: str) -> str:
    """The word without the pair of quotes around it."""
    return word[1:-1] if _QUOTED_WHOLE.fullmatch(word) else word


def simple_commands(command: str) -> list[list[str]]:
    """The simple commands of a line, each a list of words that starts with a command word, whatever may be one.

    A wrapper such as `sudo` starts one, and so does the word after it: `sudo apt update` gives
    `[sudo, apt, update]` and `[apt, update]`. Behind a wrapper's option may stand its value or a command, which
    nothing here can tell: `sudo -u me ls` gives `[me, ls]` and `[ls]` too. Assignments before a command word are
    left out.
    """
    found: list[list[str]] = []
    current: list[str] = []
    for word in [*words(command), ";"]:
        if word not in _SEPARATORS:
            current.append(word)
        elif current:
            while len(current) > 1 and _ASSIGNMENT.match(current[0]):
                current = current[1:]
            found.append(current)
            found += _called(current)
            valued = 0
            while len(current) > 1 and _leads(current[0]):
                valued += current[0] in wrappers().valued
                values_may_follow = valued + bool(_MAY_TAKE_A_VALUE.fullmatch(current[0]))
                current = current[1:]
                found.append(current)
                while values_may_follow and len(current) > 1 and not _leads(current[0]):
                    values_may_follow -= 1
                    current = current[1:]
                    found.append(current)
            current = []
    return found


def _called(words: list[str]) -> Iterator[list[str]]:
    """The commands behind `-exec`, and behind the condition of cmd's `if`."""
    for at, word in enumerate(words[:-1]):
        if word in wrappers().caller_options:
            yield words[at + 1 :]
    for at in (1, 2):
        if words[0].lower() == "if" and len(words) > at + 2 and words[at].lower() in wrappers().conditions:
            yield words[at + 2 :]


def _leads(word: str) -> bool:
    """Whether a command may follow: a wrapper, or what only a wrapper has before its command."""
    return word.lower() in wrappers().names or word.startswith("-") or bool(_ASSIGNMENT.match(word))


def quoted_lines(command: str) -> list[str]:
    """The quoted texts of a line that may be lines themselves, as in `sh -c "..."` and `ssh host "..."`."""
    texts = [(word, unquote(word)) for word in words(command)]
    return [inner for word, inner in texts if inner is not word and " " in inner]


def command_names(command: str) -> set[str]:
    """The names of the commands of a line, as `command_name` gives them."""
    return {command_name(simple[0]) for simple in simple_commands(command)}


def command_name(word: str) -> str:
    """A command word in lower case, without quotes, folder, `.exe`, and the `@` that cmd lets stand there."""
    return unquote(word).replace("\\", "/").rsplit("/", 1)[-1].lower().removesuffix(".exe").lstrip("@")
