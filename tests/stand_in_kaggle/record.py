"""What was asked of the stand-in, so that tests can count it; no token and no signed URL is in it."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """A request: seconds on the monotonic clock, HTTP verb and path without its secret, RPC or place, who sent it.

    `way` is bearer, basic or none; `status` is None where the connection was closed without an answer.
    """

    at: float
    verb: str
    path: str
    rpc: str
    way: str
    account: str
    status: int | None
    fault: str


class Record:
    """All requests so far, in the order in which they were answered."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._lock = threading.Lock()

    def add(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)

    def calls(self, rpc: str | None = None) -> list[Call]:
        """The requests for one RPC or place, or all."""
        with self._lock:
            return [call for call in self._calls if rpc in (None, call.rpc)]

    def busiest(self, rpc: str, seconds: float) -> int:
        """The most requests for `rpc` that came within any such stretch of time."""
        times = sorted(call.at for call in self.calls(rpc))
        return max((sum(begin <= at < begin + seconds for at in times) for begin in times), default=0)
