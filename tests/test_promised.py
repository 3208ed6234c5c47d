"""What the clients' documentation promises: written down whole, each line once, in shells that we have."""

from pathlib import Path

import pytest

from stages.common import promised
from stages.common.danger import added_danger
from stages.common.errors import PipelineError
from stages.common.promised import promises

DOCUMENTED = {
    "gti status": "git status",
    "git pul origin main": "git pull origin main",
    "dcoker ps -a": "docker ps -a",
    "dcoker ps": "docker ps",
    "docker biuld -t myapp .": "docker build -t myapp .",
    "npm isntall": "npm install",
    "nmp install": "npm install",
    "pip instal requests": "pip install requests",
    "kubeclt get pods": "kubectl get pods",
    "kubectl delte pod nginx": "kubectl delete pod nginx",
    "kubctl get pods": "kubectl get pods",
    "kubect get pods": "kubectl get pods",
    "cagro build --release": "cargo build --release",
    "cargo tset": "cargo test",
    "pytohn script.py": "python script.py",
    "pyton -m venv myenv": "python -m venv myenv",
    "cat file.txt | gerp pattern": "cat file.txt | grep pattern",
    "dcoker ps | gerp nginx": "docker ps | grep nginx",
    "dockr ps": "docker ps",
    "gut push": "git push",
    "ls --recursive": "ls --recursive",
    "ls -la": "ls -la",
    'echo "hello world"': 'echo "hello world"',
}


def test_every_documented_line_is_promised_once():
    lines = promises().lines
    assert {line.typed: line.answer for line in lines} == DOCUMENTED
    assert len(lines) == len(DOCUMENTED)


def test_a_line_is_asked_in_bash_and_zsh_and_the_one_for_fish_in_fish():
    asked = [(shell, line.typed) for shell, line in promises().in_shells()]
    assert len(asked) == len(set(asked)) == 2 * (len(DOCUMENTED) - 1) + 1
    assert ("zsh", "gti status") in asked
    assert [shell for shell, typed in asked if typed == "gut push"] == ["fish"]


def test_no_promise_adds_danger():
    assert [line for shell, line in promises().in_shells() if added_danger(shell, line.typed, line.answer)] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shells: [bash]\nseen: 1\nlines: [{typed: sl}]\n", "lines.0.answer: Field required"),
        ("shells: [bsh]\nseen: 1\nlines: [{typed: sl, answer: ls}]\n", "shells.0: Input should be"),
        ("shells: [bash]\nseen: 1\nlines: []\n", "lines: List should have at least 1"),
        ("shells: [bash\n", "not YAML"),
        (
            "shells: [bash]\nseen: 1\nlines: [{typed: sl, answer: ls}, {typed: sl, answer: s}]\n",
            "lines: 'sl' has two answers in bash; remove one",
        ),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str):
    (tmp_path / "promised.yaml").write_text(text)
    monkeypatch.setattr(promised, "PROMISED", tmp_path / "promised.yaml")
    with pytest.raises(PipelineError, match=rf"promised\.yaml:.* ?{message}"):
        promises()
