"""Asking one line: the prompt is the clients', the answer comes back bare."""

import json
import os
from pathlib import Path

import pytest
from programs import write_program

from stages.common.ask import ask, require_askable
from stages.common.chat import Decoding, render_prompt
from stages.common.errors import PipelineError

STAND_IN = Path(__file__).with_name("stand_in_llama_server.py")


def test_a_line_is_asked_with_the_prompt_of_the_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = write_program(tmp_path / "llama-server", STAND_IN)
    (tmp_path / "answers.json").write_text(json.dumps({"gti status": "git status "}))
    monkeypatch.setenv("STAND_IN_ANSWERS", str(tmp_path / "answers.json"))
    monkeypatch.setenv("STAND_IN_REQUESTS", str(tmp_path / "requests.jsonl"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"")

    assert (
        ask(program, tmp_path / "model.gguf", render_prompt("zsh", "gti status"), Decoding(16, ("\n",)))
        == "git status"
    )

    [request] = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
    assert request["prompt"] == render_prompt("zsh", "gti status")


@pytest.mark.parametrize("line", ["", "gti status", "ls Müll", "a" * 1500])
def test_a_line_as_a_client_sends_it_is_asked(line: str) -> None:
    require_askable(line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (os.fsdecode(b"caf\xe9"), "the line is not UTF-8; type it in a terminal that is"),
        ("ü" * 751, "the line has 1502 bytes; ask at most 1500"),
    ],
)
def test_what_no_client_could_ask_is_one_line(line: str, message: str) -> None:
    with pytest.raises(PipelineError) as refused:
        require_askable(line)
    assert str(refused.value) == message
