"""llama-server as a child: it starts, answers as the clients are answered, and every way it fails is one line."""

import errno
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from programs import write_program

from stages.common import server
from stages.common.chat import CORRECT, DECODING, WIT, Decoding, render_prompt
from stages.common.errors import PipelineError
from stages.common.llama_cpp import llama_cpp_environment
from stages.common.server import Answer, LlamaServer, serve

STAND_IN = Path(__file__).with_name("stand_in_llama_server.py")
SHORT = Decoding(max_tokens=16, stops=("\n",))
Start = Callable[..., AbstractContextManager[LlamaServer]]


@pytest.fixture
def executable(tmp_path: Path) -> Path:
    return write_program(tmp_path / "llama-server", STAND_IN)


@pytest.fixture
def start(executable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.delenv("LLAMA_SERVER_PORT", raising=False)

    def start(fault: str = "", **options: float) -> AbstractContextManager[LlamaServer]:
        monkeypatch.setenv("STAND_IN_FAULT", fault)
        monkeypatch.setenv("STAND_IN_REQUESTS", str(tmp_path / "requests.jsonl"))
        log = tmp_path / "server.log"
        return serve(executable, tmp_path / "model.gguf", slots=2, context=256, log=log, **options)

    return start


def is_alive(process_id: int) -> bool:
    """Whether the process runs (one that only waits to be reaped does not)."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process_id}/status").read_text()
    except FileNotFoundError:
        return False


def until(condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true within five seconds."""
    deadline = time.monotonic() + 5
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_it_answers_on_a_port_that_the_kernel_chose(start: Start):
    with start() as one, start() as other:
        assert one.port != other.port
        assert one.complete(render_prompt("bash", "gti status"), SHORT) == Answer("gti status", cut_off=False)
        assert one.load_ms > 0


@pytest.mark.parametrize("own", [None, "77"])
def test_its_threads_do_not_spin_for_each_other_for_long(
    start: Start, monkeypatch: pytest.MonkeyPatch, own: str | None
):
    """Beside another program they would take the cores from each other; a value of one's own counts."""
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if own:
        monkeypatch.setenv("GOMP_SPINCOUNT", own)
    with start() as server:
        environment = Path(f"/proc/{server.process_id}/environ").read_bytes().decode().split("\0")
    [spins] = [entry.partition("=")[2] for entry in environment if entry.startswith("GOMP_SPINCOUNT=")]
    assert spins == own if own else 0 < int(spins) <= 1000


@pytest.mark.parametrize(
    ("task", "tokens", "stops"), [(CORRECT, 128, ["<|im_end|>", "\n"]), (WIT, 256, ["<|im_end|>"])]
)
def test_a_request_is_greedy_and_stops_where_the_client_of_the_task_stops(
    start: Start, tmp_path: Path, task: str, tokens: int, stops: list[str]
):
    with start() as server:
        server.complete(render_prompt("fish", "ls"), DECODING[task])
    request = json.loads((tmp_path / "requests.jsonl").read_text())
    assert request["prompt"] == render_prompt("fish", "ls")
    assert request["stop"] == stops
    assert (request["temperature"], request["top_k"], request["n_predict"]) == (0, 1, tokens)


def test_an_answer_that_ran_on_until_the_limit_is_told_from_one_that_ended(start: Start):
    with start() as server:
        answers = [server.complete(render_prompt("bash", "a b c"), Decoding(n, ())) for n in (2, 3)]
    assert answers == [Answer("a b", cut_off=True), Answer("a b c", cut_off=False)]


def test_many_requests_at_once_come_back_in_order(start: Start):
    commands = [f"echo {number}" for number in range(250)]
    counted = []
    with start() as server:
        prompts = [render_prompt("zsh", command) for command in commands]
        answers = server.complete_all(prompts, SHORT, on_answer=lambda: counted.append(1))
    assert [answer.text for answer in answers] == commands
    assert len(counted) == 250


@pytest.mark.parametrize("fault", ["hiccup", "break"])
def test_a_dropped_connection_is_tried_again(start: Start, fault: str):
    with start(fault) as server:
        answers = [server.complete(render_prompt("bash", f"cd {number}"), SHORT) for number in range(4)]
    assert [answer.text for answer in answers] == ["cd 0", "cd 1", "cd 2", "cd 3"]


@pytest.mark.parametrize("fault", ["die", "die-midway"])
def test_a_server_that_dies_at_work_is_an_error_with_its_last_words(start: Start, fault: str):
    with start(fault) as server, pytest.raises(PipelineError, match=r"status 3 .*out of memory"):
        server.complete_all([render_prompt("cmd", f"dir {number}") for number in range(50)], SHORT)


def test_an_answer_without_an_end_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "_REQUEST_TIMEOUT_S", 0.3)
    with start("endless") as running, pytest.raises(PipelineError, match="an answer that does not end"):
        running.complete(render_prompt("bash", "ls"), SHORT)


def test_every_open_request_has_a_thread_of_the_server(start: Start):
    """Those without one wait until a connection is closed, which is after some hundred answers."""
    with start() as server:
        command = Path(f"/proc/{server.process_id}/cmdline").read_bytes().decode().split("\0")
    assert int(command[command.index("--threads-http") + 1]) > server.in_flight > 1


def test_a_machine_without_loopback_is_told_so(start: Start, monkeypatch: pytest.MonkeyPatch):
    def unreachable(_: http.client.HTTPConnection) -> None:
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    monkeypatch.setattr(http.client.HTTPConnection, "connect", unreachable)
    with start() as server, pytest.raises(PipelineError, match="ip link set lo up"):
        server.complete(render_prompt("bash", "ls"), SHORT)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("refuse", "HTTP 500"),
        ("reject", "refuses what it is asked: HTTP 400"),
        ("garble", "than a completion"),
        ("surrogate", "than a completion"),
    ],
)
def test_a_case_without_an_answer_is_an_error_and_not_a_wrong_answer(start: Start, fault: str, message: str):
    with start(fault) as server, pytest.raises(PipelineError, match=message):
        server.complete(render_prompt("bash", "ls"), SHORT)


def test_a_model_that_does_not_load_is_an_error_with_the_last_line_of_the_log(start: Start):
    with (
        pytest.raises(PipelineError, match=r"ended with status 1 before it was ready: .*not a GGUF"),
        start("load"),
    ):
        pass


def test_a_server_that_never_gets_ready_is_given_up_and_killed(start: Start):
    with pytest.raises(PipelineError, match="was not ready in time"), start("silent", start_timeout_s=0.3):
        pass


def test_a_missing_program_is_an_error(tmp_path: Path):
    missing = serve(tmp_path / "nowhere", tmp_path / "m.gguf", slots=1, context=64, log=tmp_path / "log")
    with pytest.raises(PipelineError, match=r"cannot start .*nowhere: No such file"), missing:
        pass


def test_a_fixed_port_in_use_is_one_clear_line(start: Start, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("LLAMA_SERVER_PORT", str(port))
        with (
            pytest.raises(PipelineError, match=rf"port {port} on 127.0.0.1 is in use; .*unset LLAMA_SERVER_PORT"),
            start(),
        ):
            pass


@pytest.mark.parametrize("text", ["no", "0", "65536", "-1"])
def test_a_fixed_port_that_is_none_is_refused(start: Start, monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setenv("LLAMA_SERVER_PORT", text)
    with pytest.raises(PipelineError, match=r"LLAMA_SERVER_PORT=.*: not a port"), start():
        pass


def test_the_server_ends_with_the_block(start: Start):
    with start() as server:
        assert is_alive(server.process_id)
    assert not is_alive(server.process_id)


def test_the_server_dies_with_a_stage_that_is_killed(executable: Path, tmp_path: Path):
    script = f"""
import time
from pathlib import Path
from stages.common.server import serve
executable, log = Path({str(executable)!r}), Path({str(tmp_path / "log")!r})
with serve(executable, Path("m"), slots=1, context=64, log=log) as server:
    print(server.process_id, flush=True)
    time.sleep(60)
"""
    stage = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    server_id = int(stage.stdout.readline())
    assert is_alive(server_id)
    os.kill(stage.pid, signal.SIGKILL)
    stage.wait()
    assert until(lambda: not is_alive(server_id))


def test_settings_in_the_environment_do_not_reach_the_tools(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "16")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    environment = llama_cpp_environment()
    assert "LLAMA_ARG_CTX_SIZE" not in environment
    assert environment["OMP_NUM_THREADS"] == "2"
