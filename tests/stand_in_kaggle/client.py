"""The unpatched client in a process of its own: `with client(environment, folder) as api`.

In: `api("kernels_status", "alice/train-tiny/1")`, a method of KaggleApi, or "cancel", which it does not have. Out:
what it returns, messages as dictionaries; or `Refused`, with the type, text and status of what it raised. Run as a
program this file is the other side: a line of JSON in, a line of JSON out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Refused(Exception):
    """What the client raised: its type and those above it, its text, and the status of the HTTP answer if any."""

    def __init__(self, kinds: list[str], text: str, status: int | None) -> None:
        super().__init__(f"{kinds[0]}: {text}")
        self.kinds, self.text, self.status = kinds, text, status


class Client:
    """Commands go to the process one at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, method: str, *args: object, **options: object) -> Any:
        """Call and wait for what comes."""
        self.begin(method, *args, **options)
        return self.result()

    def begin(self, method: str, *args: object, **options: object) -> None:
        """Call without waiting; `result` waits."""
        self._process.stdin.write(json.dumps([method, args, options]) + "\n")
        self._process.stdin.flush()

    def result(self) -> Any:
        """What the call that was begun returns."""
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the client's process has ended; client.txt in its folder says why")
        answer = json.loads(line)
        if "kinds" in answer:
            raise Refused(**answer)
        return answer["value"]


@contextmanager
def client(environment: Mapping[str, str], folder: Path) -> Iterator[Client]:
    """A client that runs in `folder` with this environment; what it prints for people goes to client.txt there."""
    with (
        (folder / "client.txt").open("wb") as said,
        subprocess.Popen(
            [sys.executable, "-P", __file__],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            encoding="utf-8",
        ) as process,
    ):
        try:
            yield Client(process)
        finally:
            process.kill()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the client prints its warnings to standard output
    import kaggle

    for line in sys.stdin:
        method, args, options = json.loads(line)
        try:
            call = _cancel if method == "cancel" else getattr(kaggle.api, method)
            answer = {"value": _plain(call(*args, **options))}
        except Exception as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            status = getattr(getattr(error, "response", None), "status_code", None)
            answer = {"kinds": kinds, "text": str(error), "status": status}
        print(json.dumps(answer), file=answers, flush=True)


def _cancel(session: int) -> object:
    import kaggle
    from kagglesdk.kernels.types.kernels_api_service import ApiCancelKernelSessionRequest

    request = ApiCancelKernelSessionRequest()
    request.kernel_session_id = session
    with kaggle.api.build_kaggle_client() as sdk:
        return sdk.kernels.kernels_api_client.cancel_kernel_session(request)


def _plain(value: object) -> object:
    if hasattr(value, "to_dict"):
        return value.to_dict(ignore_defaults=False)
    if isinstance(value, str | int | float | dict | None):
        return value
    return [_plain(item) for item in value]


if __name__ == "__main__":
    _serve()
