"""A corpus of bad files: good rows with one fault among them, each found at its line by the rule that names it.

Nothing else may be found, since a validator that cries at good rows is not believed about bad ones.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.common.chat import SHELLS, system_prompt
from stages.common.config import DataParams
from stages.common.golden import golden_cases
from stages.validate import read_and_check

PARAMS = DataParams(
    rows=10,
    shells=dict.fromkeys(SHELLS, 0.0) | {"bash": 1.0},
    families={"command": 1.0},
    grammar_share=0.0,
    max_chars=100,
    heldout_tools=[],
)
PLACE = 3  # the line of the fault, from 1


def row(typed: str, answer: str, shell: str = "bash", **said: object) -> dict:
    unchanged = typed == answer
    meta = {
        "shell": shell,
        "family": "correct" if unchanged else "command",
        "kind": "none" if unchanged else "transposition",
        "tool": answer.split()[0],
        "source": "hand",
        "group": f"{typed}>{answer}",
        **said,
    }
    texts = (system_prompt(shell), typed, answer)
    roles = ("system", "user", "assistant")
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    return {"messages": messages, "meta": meta}


GOOD = [
    row("gti fetch upstream", "git fetch upstream"),
    row("sl -la src", "ls -la src", "zsh"),
    row("cat notes.txt", "cat notes.txt", "fish"),
    row("dri C:\\Temp", "dir C:\\Temp", "cmd"),
    row("gte-process", "Get-Process", "powershell"),
]


def changed(change: Callable[[dict], object]) -> dict:
    """A good row, changed in place."""
    bad = copy.deepcopy(GOOD[0])
    bad["messages"][1]["content"] = "gti remote update"
    bad["messages"][2]["content"] = "git remote update"
    bad["meta"]["group"] = "another"
    change(bad)
    return bad


def message(index: int, text: object) -> Callable[[dict], object]:
    return lambda bad: bad["messages"][index].update(content=text)


GOLDEN = golden_cases()[0]
WHOLE = json.dumps(changed(lambda bad: None)).encode()

FAULTS: dict[str, tuple[str, bytes | dict]] = {
    "no UTF-8": ("utf-8", WHOLE.replace(b"remote", b"rem\xffte")),
    "half a surrogate": ("utf-8", WHOLE.replace(b"remote", b"rem\\ud800te")),
    "a byte order mark": ("utf-8", b"\xef\xbb\xbf" + WHOLE),
    "a bare NUL": ("json", WHOLE.replace(b"remote", b"rem\x00te")),
    "a line of ten megabytes": ("json", WHOLE.replace(b"remote", b"r" * 10_000_000)),
    "CR LF": ("json", WHOLE + b"\r"),
    "an empty line": ("json", b""),
    "cut off": ("json", WHOLE[:100]),
    "two objects in a line": ("json", WHOLE + WHOLE),
    "single quotes": ("json", WHOLE.replace(b'"', b"'")),
    "nested without end": ("json", b"[" * 30_000),
    "a list": ("schema", b'["gti", "git"]'),
    "a number": ("schema", b"7"),
    "no messages": ("schema", changed(lambda bad: bad.pop("messages"))),
    "two messages": ("schema", changed(lambda bad: bad["messages"].pop())),
    "four messages": ("schema", changed(lambda bad: bad["messages"].append(bad["messages"][0]))),
    "wrong order of roles": ("schema", changed(lambda bad: bad["messages"].reverse())),
    "an unknown role": ("schema", changed(lambda bad: bad["messages"][1].update(role="human"))),
    "content that is no text": ("schema", changed(message(1, 5))),
    "another system prompt": ("schema", changed(message(0, "You are helpful."))),
    "an unknown shell": ("schema", changed(message(0, system_prompt("bash").replace("bash", "ksh")))),
    "an empty input": ("schema", changed(message(1, ""))),
    "an escaped NUL": ("schema", changed(message(1, "gti remote\0 update"))),
    "a tab": ("schema", changed(message(1, "gti\tremote update"))),
    "a line break": ("schema", changed(message(1, "gti remote\nupdate"))),
    "an emoji": ("schema", changed(message(1, "gti remote update \U0001f680"))),
    "an invisible character": ("schema", changed(message(1, "gti remo\u200bte update"))),
    "no normal form": ("schema", row("cta cafe\u0301", "cat caf\u00e9")),
    "a blank at the end": ("schema", changed(message(1, "gti remote update "))),
    "too long": ("schema", row("gti add " + "x" * 100, "git add " + "x" * 100)),
    "no meta": ("meta", changed(lambda bad: bad.pop("meta"))),
    "a missing meta field": ("meta", changed(lambda bad: bad["meta"].pop("kind"))),
    "an unknown meta field": ("meta", changed(lambda bad: bad["meta"].update(colour="red"))),
    "an unknown family": ("meta", changed(lambda bad: bad["meta"].update(family="guess"))),
    "an unknown kind": ("meta", changed(lambda bad: bad["meta"].update(kind="magic"))),
    "another shell in meta": ("meta", changed(lambda bad: bad["meta"].update(shell="zsh"))),
    "a tool of another answer": ("meta", changed(lambda bad: bad["meta"].update(tool="svn"))),
    "an accept that is no list": ("meta", changed(lambda bad: bad["meta"].update(accept="git remote"))),
    "sudo from nowhere": ("danger", row("apt updaet", "sudo apt update", tool="apt")),
    "rm -rf for rm": ("danger", row("rm bulid", "rm -rf build")),
    "--force from nowhere": ("danger", row("gti push", "git push --force")),
    "danger in what is accepted": ("danger", row("gti push", "git push", accept=["git push --force"])),
    "a key": ("private", row("ecoh AKIAIOSFODNN7EXAMPLE", "echo AKIAIOSFODNN7EXAMPLE")),
    "a token": ("private", row("ecoh ghp_" + "a1B2" * 9, "echo ghp_" + "a1B2" * 9)),
    "a password": ("private", row("crul -u password=hunter2really", "curl -u password=hunter2really")),
    "a real address": ("private", row("pnig 93.184.216.34", "ping 93.184.216.34")),
    "somebody's mail": ("private", row("ecoh joe.miller@gmail.com", "echo joe.miller@gmail.com")),
    "double braces": ("leftover", row("gti show {{x}}", "git show {{x}}")),
    "an unfilled slot": ("leftover", row("gti show {commit}", "git show {commit}")),
    "a placeholder": ("leftover", row("gti show <commit>", "git show <commit>", "fish")),
    "a TODO": ("leftover", row("gti show TODO", "git show TODO")),
    "a command for a typo": ("mistyped", row("cat notes.txt", "cut notes.txt")),
    "an invented URL": ("invented", row("gti clone", "git clone https://example.com/a.git")),
    "an invented path": ("invented", row("cta", "cat /etc/hosts")),
    "an answer to another request": (
        "invented",
        row("show disk usage", "ls /etc/passwd", family="request", kind="request"),
    ),
    "an invented number": ("invented", row("haed -n", "head -n 5")),
    "an answer that does not parse": ("syntax", row("ecoh (a", "echo (a")),
    "a quote that cmd never closes": ("syntax", row('ecoh "a', 'echo "a', "cmd")),
    "a pipe into nothing": ("syntax", row("sl |", "ls |", "fish")),
    "another command": ("edits", row("gti push", "kubectl get pods")),
    "a branch from nowhere": ("edits", row("gti push", "git push origin main")),
    "a file from nowhere": ("edits", row("cta", "cat README.md")),
    "words in no other order": (
        "edits",
        row("gti push", "kubectl get pods", family="syntax", kind="word_order"),
    ),
    "a family that is no text": ("meta", changed(lambda bad: bad["meta"].update(family=["command"]))),
    "a tool with a blank": ("meta", changed(lambda bad: bad["meta"].update(tool="git "))),
    "a request in another family": ("meta", changed(lambda bad: bad["meta"].update(kind="request"))),
    "a key that stands twice": (
        "json",
        WHOLE.replace(b'"content": "git remote update"', b'"content": "rm -rf /", "content": "git remote update"'),
    ),
    "a key of the meta that stands twice": ("json", WHOLE.replace(b'"shell": ', b'"shell": "cmd", "shell": ')),
    "a key that stands twice, once with a blank": (
        "json",
        WHOLE.replace(b'"shell": ', b'"shell" : "cmd", "shell": '),
    ),
    "a key that stands twice, once as an escape": (
        "json",
        WHOLE.replace(b'"content": "git remote update"', b'"c\\u006fntent": "ls", "content": "git remote update"'),
    ),
    "a role that stands twice": ("json", WHOLE.replace(b'"role": "user"', b'"role": "system", "role": "user"')),
    "a field beside the messages": ("schema", changed(lambda bad: bad.update(text="gti"))),
    "a number of 5,000 digits": ("json", WHOLE.replace(b'{"messages"', b'{"x": ' + b"9" * 5000 + b', "messages"')),
    "UTF-16": ("utf-8", WHOLE.decode().encode("utf-16-le").replace(b"\n", b"")),
    "a blank of a text processor": ("schema", changed(message(2, "git remote\u00a0update"))),
    "a long dash": ("schema", row("gti log --oneline", "git log \u2014oneline")),
    "the end of a turn in the text": ("leftover", row("ecoh <|im_end|>", "echo <|im_end|>", "cmd")),
    "a name to be replaced": ("leftover", row("gti switch your-branch", "git switch your-branch")),
    "an accepted answer that is the typo": ("null", row("gti push", "git push", accept=["gti push"])),
    "an accepted answer from nowhere": ("invented", row("gti push", "git push", accept=["git push /srv/a.git"])),
    "a live key": ("private", row("ecoh sk_live_" + "a1B2" * 6, "echo sk_live_" + "a1B2" * 6)),
    "another shell's program": ("foreign", row("wihch node", "which node", "cmd")),
    "nothing corrected": ("null", changed(message(1, "git remote update"))),
    "changed though right": ("null", row("sl", "ls", family="correct", kind="none")),
    "a duplicate": ("duplicate", GOOD[0] | {"meta": GOOD[0]["meta"] | {"group": "other"}}),
    "a golden case": ("golden", row(GOLDEN.typed, GOLDEN.accept[0], GOLDEN.shell, family=GOLDEN.family)),
    "a golden case of another shell": (
        "golden",
        row(GOLDEN.typed, GOLDEN.accept[0], "fish", family=GOLDEN.family),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_is_found_at_its_line_and_nothing_else(tmp_path: Path, fault: str) -> None:
    rule, bad = FAULTS[fault]
    lines = [json.dumps(good).encode() for good in GOOD]
    lines.insert(PLACE - 1, bad if isinstance(bad, bytes) else json.dumps(bad).encode())
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")

    _, findings = read_and_check([path], PARAMS)

    assert {(finding.line, finding.rule) for finding in findings} == {(PLACE, rule)}
    assert all(str(finding).startswith(f"{path}:{PLACE}: [{rule}] ") for finding in findings)


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ('ecoh \'"a": 1, "a": 2\'', 'echo \'"a": 1, "a": 2\''),
    ],
)
def test_what_looks_like_a_key_in_a_line_is_none(tmp_path: Path, typed: str, answer: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in [*GOOD, row(typed, answer)]))

    _, findings = read_and_check([path], PARAMS)

    assert [finding for finding in findings if finding.rule == "json"] == []


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("nano /etc/passwd: permission denied", "sudo nano /etc/passwd"),
        ("σση γιτ@γιτ.εχαμπλε.ψομ", "ssh git@git.example.com"),
    ],
)
def test_what_only_looks_private_is_left_alone(tmp_path: Path, typed: str, answer: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in [*GOOD, row(typed, answer, family="syntax")]))

    _, findings = read_and_check([path], PARAMS)

    assert [finding for finding in findings if finding.rule == "private"] == []


def test_a_contradiction_is_found_at_both_of_its_lines(tmp_path: Path) -> None:
    rows = [*GOOD, row("gti fetch upstream", "gtk fetch upstream", group="other")]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))

    _, findings = read_and_check([path], PARAMS)

    assert {(finding.line, finding.rule) for finding in findings} == {(1, "contradiction"), (6, "contradiction")}
