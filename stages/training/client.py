"""Kaggle as the driver sees it: calls with a hard time limit, in an environment without strange settings.

In: the process's environment. Out: plain values, or a `CallError` with every secret taken out of it.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.common.processes import die_with_parent
from stages.training.failures import CallError, CredentialsError
from stages.training.patience import say
from stages.training.redaction import own_secrets, redact

_WORKER = [sys.executable, "-m", "stages.training.kaggle_worker"]
_PASSED = {
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
}


def client_environment(environment: Mapping[str, str], home: Path) -> dict[str, str]:
    """What the client is allowed to see: how to reach the network, and one way to sign in.

    Every other KAGGLE_ variable would become one of its settings (a stray KAGGLE_TOKEN is sent as a token),
    VERBOSE prints the token, and `home`, an empty folder of ours, keeps it from ~/.kaggle and ~/.netrc.
    KAGGLE_API_ENVIRONMENT passes as LOCALHOST alone, for the tests' Kaggle: it makes the client speak to this
    machine and to nobody else.

    Raises:
        CredentialsError: there is nothing to sign in with.
    """
    passed = {name: environment[name] for name in _PASSED if name in environment}
    passed |= {"HOME": str(home), "KAGGLE_CONFIG_DIR": str(home)}
    if environment.get("KAGGLE_API_ENVIRONMENT") == "LOCALHOST":
        passed["KAGGLE_API_ENVIRONMENT"] = "LOCALHOST"
    if environment.get("KAGGLE_API_TOKEN"):
        # never both: with a rejected token the client picks the key, and still sends the token
        return passed | {"KAGGLE_API_TOKEN": environment["KAGGLE_API_TOKEN"]}
    pair = {name: environment[name] for name in ("KAGGLE_USERNAME", "KAGGLE_KEY") if environment.get(name)}
    if len(pair) < 2:
        raise CredentialsError(
            "no Kaggle credentials: make a token at kaggle.com/settings/api and set KAGGLE_API_TOKEN to it"
        )
    say("warning: KAGGLE_USERNAME and KAGGLE_KEY are the old way, with which no run can be cancelled; "
        "use KAGGLE_API_TOKEN")  # fmt: skip
    return passed | pair


class Kaggle:
    """One account's Kaggle, through a worker process that is replaced when it does not answer in time."""

    def __init__(self, environment: Mapping[str, str], home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._environment = client_environment(environment, home)
        self._secrets = own_secrets(self._environment)
        self._worker: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        """End the worker process."""
        self._stop()

    def call(self, operation: str, limit_s: float, **arguments: Any) -> Any:
        """Carry out one of `kaggle_calls.OPERATIONS`.

        Raises:
            CallError: it failed, or took longer than `limit_s` and was killed.
        """
        worker = self._running()
        request = json.dumps({"operation": operation, "arguments": arguments}) + "\n"
        try:
            worker.stdin.write(request.encode())
            worker.stdin.flush()
            answer = json.loads(self._line(worker, time.monotonic() + limit_s))
        except (BrokenPipeError, EOFError):
            status = worker.wait()
            self._stop()
            raise CallError("crashed", f"the Kaggle client ended with status {status}") from None
        except TimeoutError:
            self._stop()
            raise CallError("timeout", f"no answer in {limit_s:.0f} s") from None
        if error := answer.get("error"):
            message = redact(" ".join(error["message"].split()), self._secrets)
            raise CallError(error["kind"], message, error.get("status"), error.get("retry_after_s"))
        return answer["result"]

    def follow(self, ref: str, path: Path, reconnect_s: float) -> subprocess.Popen[bytes]:
        """A process that appends the log of a running kernel to `path`; the caller ends it."""
        return subprocess.Popen(
            [*_WORKER, "follow", ref, str(path), str(reconnect_s)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            preexec_fn=die_with_parent,
        )

    def _running(self) -> subprocess.Popen[bytes]:
        if self._worker is None or self._worker.poll() is not None:
            self._worker = subprocess.Popen(
                _WORKER,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # the client's chatter may hold signed addresses
                env=self._environment,
                preexec_fn=die_with_parent,
            )
        return self._worker

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.communicate()
            self._worker = None

    @staticmethod
    def _line(worker: subprocess.Popen[bytes], deadline: float) -> bytes:
        """The worker's next line. Raises `TimeoutError` at the deadline and `EOFError` where it has ended."""
        pieces = []
        while not (pieces and pieces[-1].endswith(b"\n")):
            ready, _, _ = select.select([worker.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            pieces.append(os.read(worker.stdout.fileno(), 1 << 16))
            if not pieces[-1]:
                raise EOFError
        return b"".join(pieces)
