"""Keyboard layouts other than the Latin one (data/slips.yaml): what a line becomes on them, and back."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from stages.common.files import read_yaml

SLIPS = Path("data/slips.yaml")


@cache
def _layouts() -> dict[str, dict[str, str]]:
    """Layout -> {Latin key: what it types}, capitals included."""
    table = read_yaml(SLIPS)["layouts"]
    return {
        name: {**keys, **{key.upper(): letter.upper() for key, letter in keys.items() if key.isalpha()}}
        for name, keys in table.items()
    }


def typed_on(layout: str, line: str) -> str | None:
    """The line as the same keys give it on that layout; None where a letter has no key there."""
    keys = _layouts()[layout]
    if any(letter.isalpha() and letter not in keys for letter in line):
        return None
    return "".join(keys.get(letter, letter) for letter in line)


def latin(line: str) -> str:
    """A line typed on one of the layouts as the same keys give it on a Latin one; any other line as it is."""
    if line.isascii():
        return line
    for keys in _layouts().values():
        back = {letter: key for key, letter in keys.items()}
        if all(letter in back for letter in line if not letter.isascii()):
            return "".join(back.get(letter, letter) for letter in line)
    return line
