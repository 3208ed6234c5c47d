"""Requests in plain words: `data/requests.yaml` as one shell reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from stages.common.grammar import system_of
from stages.generating.mistakes import Typist
from stages.generating.tables import SECTIONS

_SLOT = re.compile(r"\{([a-z][a-z_]*?)(\d?)\}")
_WORD = re.compile(r"[a-z]{5,}")


@dataclass(frozen=True)
class Request:
    """What is asked, what answers it, what else would, and the templates of the first two."""

    asked: str
    answer: str
    accept: tuple[str, ...]
    origin: tuple[str, str]


@dataclass(frozen=True)
class _Intent:
    asks: tuple[str, ...]
    answer: str
    accept: tuple[str, ...]


class Requests:
    """Draws requests of one shell: every intent as often as any other, every wording of it too."""

    def __init__(
        self,
        entries: Sequence[Mapping[str, Any]],
        shell: str,
        slots: Mapping[str, Sequence[str]],
        style: Mapping[str, Any],
        typist: Typist,
    ) -> None:
        """`style`: what people put around a request (`requests` of data/sampling.yaml)."""
        own = style["slots"].get(system_of(shell), {})
        self._slots = {**slots, **{name: slots[other] for name, other in own.items()}}
        self._style, self._typist = style, typist
        self._imperative = re.compile(rf"(?:{'|'.join(style['verbs'])})\b")
        self._intents = [
            _Intent(tuple(entry["ask"]), answer, tuple(_of_shell(entry.get("accept", {}), shell) or ()))
            for entry in entries
            if (answer := _of_shell(entry["answer"], shell)) is not None
        ]

    def draw(self, kind: str, rng: Random) -> Request | None:
        """A request worded plainly, or with a typo in one of its words (any other `kind` than `request`)."""
        intent = rng.choice(self._intents)
        template = rng.choice(intent.asks)
        values = self._values([template, intent.answer, *intent.accept], rng)
        asked = template if kind == "request" else self._mistype(template, kind, rng)
        if asked is None:
            return None
        return Request(
            _filled(self._worded(asked, rng), values),
            _filled(intent.answer, values),
            tuple(_filled(other, values) for other in intent.accept),
            (template, intent.answer),
        )

    def _values(self, texts: Sequence[str], rng: Random) -> dict[str, str]:
        """One value for each slot of the texts; slots of one name and another digit differ."""
        values: dict[str, str] = {}
        for match in _SLOT.finditer("\n".join(texts)):
            slot, name = match.group(), match.group(1)
            if slot not in values and name in self._slots:
                taken = {value for other, value in values.items() if other.strip("{}0123456789") == name}
                fresh = [str(value) for value in self._slots[name] if str(value) not in taken]
                values[slot] = rng.choice(fresh)
        return values

    def _mistype(self, template: str, kind: str, rng: Random) -> str | None:
        """The template with a typo in one of its longer words, slots left alone."""
        plain = _SLOT.sub(lambda match: "\0" * len(match.group()), template)
        places = list(_WORD.finditer(plain))
        if not places:
            return None
        place = rng.choice(places)
        wrong = self._typist.mistype(place.group(), kind, rng)
        return None if wrong is None else template[: place.start()] + wrong + template[place.end() :]

    def _worded(self, asked: str, rng: Random) -> str:
        """With a polite beginning where it is an imperative, a capital, a question mark; mostly as it is."""
        style = self._style
        if self._imperative.match(asked) and rng.random() < style["opening_share"]:
            asked = rng.choice(style["openings"]) + asked
        if rng.random() < style["capital_share"] and asked[0].isalpha():
            asked = asked[0].upper() + asked[1:]
        return asked + "?" if rng.random() < style["question_mark_share"] and asked[-1].isalnum() else asked


def _filled(text: str, values: Mapping[str, str]) -> str:
    """The text with its slots filled; a slot without a value is the shell's own braces."""
    return _SLOT.sub(lambda match: values.get(match.group(), match.group()), text)


def _of_shell(table: Mapping[str, Any], shell: str) -> Any:
    """The entry of the most special group that the shell reads; None where it has none."""
    return next((table[group] for group in reversed(SECTIONS[shell]) if group in table), None)
