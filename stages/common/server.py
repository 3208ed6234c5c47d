"""llama-server for the time of a `with` block, and the client that asks it as `fix` and `wit` do.

In: a GGUF and the program. Out: answers, and how long the model took to load. The server is a child that dies with
this process, listens on loopback only, and keeps its log in a file that every error here quotes.
"""

import errno
import http.client
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stages.common.chat import Decoding
from stages.common.errors import PipelineError
from stages.common.llama_cpp import llama_cpp_environment
from stages.common.processes import program

PORT_VARIABLE = "LLAMA_SERVER_PORT"
"""Environment variable with a fixed port, for machines that forbid others; unset, the kernel picks a free one."""

_HOST = "127.0.0.1"
_LISTENING = re.compile(r"listening on https?://[^\s:]+:(\d+)")  # written once the model is loaded
_POLL_S = 0.01
_REQUEST_TIMEOUT_S = 300.0
_ATTEMPTS = 3
_REQUESTS_PER_SLOT = 2  # a slot that gets free finds the next request waiting


@dataclass(frozen=True)
class Answer:
    """What the model wrote, and whether it came to an end by itself or was cut off after so many tokens."""

    text: str
    cut_off: bool


class LlamaServer:
    """A running llama-server; safe to use from many threads, each of which keeps a connection of its own."""

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, load_ms: float, log: Path, in_flight: int
    ) -> None:
        self.port = port
        self.load_ms = load_ms
        """Milliseconds from the start of the process to the first request it would have answered."""
        self.process_id = process.pid
        self.in_flight = in_flight
        """Requests that are open at a time where many are asked."""
        self._process = process
        self._log = log
        self._local = threading.local()

    def complete(self, prompt: str, decoding: Decoding, *, reuse_prefix: bool = True) -> Answer:
        """The greedy answer to `prompt`, as far as a client would have it.

        Special tokens in the prompt are read as such. `reuse_prefix` lets a slot keep what the prompt shares with
        the one before it; batches of another size round differently, so a near-tie may then fall otherwise.

        Raises:
            PipelineError: no answer after three attempts, or a dead server.
        """
        body = json.dumps(
            {
                "prompt": prompt,
                "n_predict": decoding.max_tokens,
                "temperature": 0,
                "samplers": ["top_k"],
                "top_k": 1,
                "stop": decoding.stops,
                "cache_prompt": reuse_prefix,
                "response_fields": ["content", "stop_type"],
            }
        )
        failure = ""
        for attempt in range(_ATTEMPTS):
            time.sleep(attempt * 0.2)
            try:
                status, answer = self._post("/completion", body)
            except (OSError, http.client.HTTPException) as error:
                self._forget_connection()
                failure = f"{type(error).__name__}: {error}"
                if getattr(error, "errno", None) == errno.ENETUNREACH:
                    raise PipelineError(f"{_HOST} cannot be reached; run `ip link set lo up` as root") from None
                if (code := self._exit_status()) is not None:
                    raise PipelineError(
                        f"llama-server ended with status {code} while it answered; its last line: "
                        f"{last_line(self._log)}; see {self._log} and run again"
                    ) from None
                continue
            if status == 200:
                return _answer(answer)
            failure = f"HTTP {status}: {answer.decode('utf-8', 'replace')[:200]}"
            if status < 500:
                raise PipelineError(f"llama-server refuses what it is asked: {failure}; see {self._log}")
        raise PipelineError(f"llama-server gave no answer: {failure}; see {self._log} and run again")

    def complete_all(
        self,
        prompts: Sequence[str],
        decoding: Decoding,
        on_answer: Callable[[], object] = lambda: None,
    ) -> list[Answer]:
        """The answers to all prompts, in their order, with `in_flight` requests open at a time.

        `on_answer` is called once an answer, in their order. The first failure ends the rest.
        """
        answers = []
        pool = ThreadPoolExecutor(max_workers=self.in_flight)
        try:
            for answer in pool.map(lambda prompt: self.complete(prompt, decoding), prompts):
                answers.append(answer)
                on_answer()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # open requests end with the server, after a Ctrl-C too
        return answers

    def _post(self, path: str, body: str) -> tuple[int, bytes]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(_HOST, self.port, timeout=_REQUEST_TIMEOUT_S)
            self._local.connection = connection
        ends = time.monotonic() + _REQUEST_TIMEOUT_S
        connection.request("POST", path, body.encode(), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = b""
        while piece := response.read1(1 << 16):  # the socket's own time-out begins again with every byte
            answer += piece
            if time.monotonic() > ends:
                raise TimeoutError(f"an answer that does not end in {_REQUEST_TIMEOUT_S:.0f} s")
        if response.length:  # unlike `read`, `read1` says nothing of a connection that closed too soon
            raise http.client.IncompleteRead(answer, response.length)
        response.close()  # the connection stays, for the next request
        return response.status, answer

    def _forget_connection(self) -> None:
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def _exit_status(self) -> int | None:
        try:
            return self._process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            return None


@contextmanager
def serve(
    executable: Path,
    model: Path,
    *,
    slots: int,
    context: int,
    log: Path,
    start_timeout_s: float = 300.0,
) -> Iterator[LlamaServer]:
    """Run llama-server on `model` until the block ends, with `slots` parallel sequences of `context` tokens each.

    Raises:
        PipelineError: it does not start, ends before it is ready, is not ready in time, or a port fixed by
            `LLAMA_SERVER_PORT` is taken.
    """
    port, in_flight = _fixed_port(), slots * _REQUESTS_PER_SLOT
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        started = time.monotonic()
        command = _command(executable, model, slots, context, port, in_flight)
        environment = llama_cpp_environment()
        with program(command, what="llama-server", stdout=stream, stderr=stream, env=environment) as process:
            port = _wait_until_listening(process, log, port, started + start_timeout_s)
            yield LlamaServer(process, port, 1000 * (time.monotonic() - started), log, in_flight)


def last_line(log: Path) -> str:
    """The last line with anything in it, which is where llama.cpp's tools say why they ended."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it wrote nothing")


def _command(executable: Path, model: Path, slots: int, context: int, port: int, connections: int) -> list[str]:
    cores = str(len(os.sched_getaffinity(0)))
    return [
        *(str(executable), "--model", str(model), "--host", _HOST, "--port", str(port)),
        *("--parallel", str(slots), "--ctx-size", str(slots * context), "--no-kv-unified"),
        *("--threads", cores, "--threads-batch", cores),
        # A connection that is kept open keeps a thread of the server's. With more of them than threads (by default
        # slots and 2), the last ones wait for 1,000 answers to others, on a slow machine until they are given up.
        *("--threads-http", str(connections + 1)),
        # prompts of finished requests would be kept in memory (8 GB of it) and looked up by the next ones
        *("--cache-ram", "0"),
        *("--no-webui", "--log-colors", "off"),
    ]


def _wait_until_listening(process: subprocess.Popen[bytes], log: Path, port: int, deadline: float) -> int:
    """The port it listens on, by its own log: a port that merely answers might be another program's."""
    while True:
        text = log.read_text(encoding="utf-8", errors="replace")
        if found := _LISTENING.search(text):
            return int(found.group(1))
        if (code := process.poll()) is not None:
            if port and "couldn't bind" in text:
                raise PipelineError(
                    f"llama-server: port {port} on {_HOST} is in use; free it, or unset {PORT_VARIABLE}, so that "
                    "any free one is taken"
                )
            raise PipelineError(
                f"llama-server ended with status {code} before it was ready: {last_line(log)}; see {log}; where "
                "the model is damaged, remove it and run `dvc repro`"
            )
        if time.monotonic() > deadline:
            raise PipelineError(f"llama-server was not ready in time; see {log}")
        time.sleep(_POLL_S)


def _fixed_port() -> int:
    """The port in `LLAMA_SERVER_PORT`; 0, which lets the kernel choose, where it is not set."""
    text = os.environ.get(PORT_VARIABLE, "")
    if not text:
        return 0
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise PipelineError(f"{PORT_VARIABLE}={text}: not a port; give a number from 1 to 65535 or unset it")
    return int(text)


def _answer(answer: bytes) -> Answer:
    """The parsed answer; one that is not what `/completion` promises is an error, not an empty answer.

    `stop_type` is `eos` or `word` where the answer ended, `limit` where the tokens or the context ran out.
    """
    try:
        completion = json.loads(answer)
        json.dumps(completion, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except ValueError:
        completion = None
    match completion:
        case {"content": str(text), "stop_type": "eos" | "word" | "limit" as stop}:
            return Answer(text, cut_off=stop == "limit")
        case _:
            raise PipelineError(
                f"llama-server answered something else than a completion: {answer[:200]!r}; run again"
            )
