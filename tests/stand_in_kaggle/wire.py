"""Reading and writing messages, and the shapes that errors have.

In: the JSON of a request, read by the name of its message. Out: the JSON of an answer, built by the name of its
message. Neither can touch a field that is not in `MESSAGES`, so what the stand-in speaks is what stands there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .messages import ENUMS, MESSAGES

_DEFAULTS = {"str": "", "int": 0, "bool": False}


class UnknownField(Exception):
    """A field that `MESSAGES` does not have, or a value that does not fit it."""


@dataclass(frozen=True)
class Answer:
    """What goes back over HTTP: status, JSON body, and headers beyond type and length."""

    status: int
    body: dict[str, Any]
    headers: tuple[tuple[str, str], ...] = ()


class Request:
    """A message that came in; an absent field reads as its default, as protobuf has it."""

    def __init__(self, message: str, body: Mapping[str, Any]) -> None:
        """Raises `UnknownField` for what the stand-in would otherwise ignore in silence."""
        self._fields = MESSAGES[message]
        self._body = body
        for name, value in body.items():
            _check(message, name, value)

    def __getitem__(self, name: str) -> Any:
        kind = self._fields[name]
        if kind in MESSAGES:
            return Request(kind, self._body.get(name, {}))
        if kind.startswith("["):
            inner, values = kind[1:-1], self._body.get(name, [])
            return [Request(inner, value) for value in values] if inner in MESSAGES else values
        return self._body.get(name, _DEFAULTS.get(kind))


def message(name: str, /, **values: Any) -> dict[str, Any]:
    """The JSON object of a message that goes out: without default values, times as protobuf's JSON writes them."""
    sent = {field: value for field, value in values.items() if value not in (None, "", 0, [])}
    for field, value in sent.items():
        _check(name, field, value)
    return {field: _in_json(value) for field, value in sent.items()}


def permission_denied(text: str, status: int = 403) -> Answer:
    """An error as www.kaggle.com answers: the client shows its message."""
    return Answer(status, {"code": status, "message": text})


def gateway_error(status: int, text: str, name: str) -> Answer:
    """An error as the gateway of api.kaggle.com answers: the client loses its message."""
    return Answer(status, {"error": {"code": status, "message": text, "status": name}})


def page(items: list, size: int | None, token: str | None, default_size: int = 20) -> tuple[list, str]:
    """One page of a list, and the token of the next one or ''."""
    start = int(token.removeprefix("from-")) if token else 0
    end = start + (size or default_size)
    return items[start:end], f"from-{end}" if end < len(items) else ""


def _check(message: str, name: str, value: object) -> None:
    kind = MESSAGES[message].get(name)
    if kind is None:
        raise UnknownField(f"{message} has no {name} in the stand-in's MESSAGES")
    listed = kind.startswith("[")
    values = value if listed and isinstance(value, list) else [value]
    if listed != isinstance(value, list) or not all(_fits(kind.strip("[]"), item) for item in values):
        raise UnknownField(f"{message}.{name} is a {kind}, not {json.dumps(value, default=repr)[:80]}")


def _fits(kind: str, value: object) -> bool:
    types = {"str": str, "int": int, "bool": bool, "datetime": datetime, "timedelta": timedelta}
    if kind in types:
        return isinstance(value, types[kind])
    if kind in MESSAGES:
        return isinstance(value, dict)
    return value in ENUMS[kind] if kind in ENUMS else isinstance(value, str)


def _in_json(value: object) -> object:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03}Z"
    if isinstance(value, timedelta):
        seconds, rest = divmod(value, timedelta(seconds=1))
        return f"{seconds}.{rest.microseconds:06}s" if rest else f"{seconds}s"
    return value
