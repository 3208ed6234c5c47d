"""Rows as the rules see them, read from JSONL; what cannot be read becomes a finding of its line."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from stages.common.chat import CORRECT, SHELLS, TASKS, ToolResult, parse_user_text, system_prompt
from stages.common.words import blanks_once, operators, words
from stages.validating.answers import read_answer
from stages.validating.limits import limits
from stages.validating.skeleton import skeleton

LINE_BYTES = 1 << 16
"""The longest line that is read as a row."""
_LIKE_A_KEY = re.compile(r'"\s*:')
"""In a line of JSON the end of every key, and of no fewer places than there are keys."""
_MESSAGE_KEYS = {"role", "content"}
_ROW_KEYS = {"messages", "meta"}
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
PROMPTS = {system_prompt(shell, task): (shell, task) for shell in SHELLS for task in TASKS}
"""System text -> shell and task."""


@dataclass(frozen=True)
class Finding:
    """One broken rule at one place; `row` is what the reader needs to see."""

    file: Path
    line: int
    rule: str
    message: str
    row: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: [{self.rule}] {self.message}: {self.row}"


@dataclass(frozen=True)
class Row:
    """One line of a file. `shell` comes from the system prompt and is empty where that is not one of ours.

    `text` is the line as it is written to the dataset, `meta` what the row says about itself (empty where it says
    nothing). The parsed line itself is not kept: a million of them would fill the memory.
    """

    file: Path
    line: int
    text: str
    meta: dict[str, Any]
    shell: str
    before: str
    after: str
    task: str = CORRECT
    results: tuple[ToolResult, ...] = ()
    """What tools said of the typed line, in rows of the task `wit`."""

    @cached_property
    def asked(self) -> tuple[str, str]:
        """What the model is asked: the shell and the typed line, blanks counted once."""
        return self.shell, blanks_once(self.before)

    @property
    def question(self) -> tuple[str, tuple[str, str], tuple[ToolResult, ...]]:
        """All that the answer may depend on: the task, what is asked, and what tools said of it."""
        return self.task, self.asked, self.results

    @cached_property
    def skeleton(self) -> str:
        """What it shares with rows that differ in particulars alone."""
        return skeleton(words(self.before), read_answer(self.shell, self.after).words)

    @cached_property
    def operators(self) -> frozenset[str]:
        """The operators of the answer; none where it is no command."""
        return frozenset() if self.kind in limits().no_command_kinds else frozenset(operators(self.after))

    @property
    def family(self) -> str:
        """`meta.family`; empty where it is no text."""
        return self._said("family")

    @property
    def kind(self) -> str:
        """`meta.kind`; empty where it is no text."""
        return self._said("kind")

    def _said(self, key: str) -> str:
        said = self.meta.get(key)
        return said if isinstance(said, str) else ""

    @property
    def answers(self) -> list[str]:
        """The answer and those that are as right, as far as they are texts."""
        accept = self.meta.get("accept")
        if accept is None:  # nearly always
            return [self.after]
        others = accept if isinstance(accept, list) else []
        return [self.after, *(other for other in others if isinstance(other, str))]

    def finding(self, rule: str, message: str) -> Finding:
        """A finding about this row."""
        shown = f"{self.shell or '?'}: {self.before} -> {self.after}"
        return Finding(self.file, self.line, rule, _visible(message), _visible(shown))


def _visible(text: str) -> str:
    """The text with what would move the cursor or turn the line around written as an escape."""
    return _UNSEEN.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def parse_line(file: Path, number: int, line: bytes) -> Row | Finding:
    """The row of a line, or what keeps the line from being one."""

    def broken(rule: str, message: str) -> Finding:
        shown = repr(line[:120].decode("utf-8", errors="backslashreplace").rstrip("\n"))
        return Finding(file, number, rule, message, shown)

    if len(line) > LINE_BYTES:
        return broken("json", f"{len(line)} bytes in one line, more than {LINE_BYTES}; no row is that long")
    if line.endswith(b"\r\n"):
        return broken("json", "ends in CR LF; save the file with Unix line ends")
    if line.startswith(b"\xef\xbb\xbf"):
        return broken("utf-8", "starts with a byte order mark; save the file without it")
    if line.count(b"\0") > len(line) // 4:
        return broken("utf-8", "every other byte is NUL, as in UTF-16; save the file as UTF-8")
    try:
        text = line.decode("utf-8").strip(" \t\n")
        content = _parsed(text)
    except UnicodeDecodeError as error:
        return broken("utf-8", f"not UTF-8 at byte {error.start + 1}; save the file as UTF-8")
    except UnicodeEncodeError:
        return broken("utf-8", "half a surrogate pair (\\ud800 to \\udfff) is no character")
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" starting at")
        return broken("json", f"not JSON: {what} at column {error.colno}; mend or delete the line")
    except ValueError as error:  # a number of thousands of digits; a key that stands twice
        return broken("json", f"{str(error).partition(';')[0]}; mend or delete the line")
    except RecursionError:
        return broken("json", "nested too deeply to be a row; delete the line")
    texts = _texts(content)
    if isinstance(texts, str):
        return broken("schema", texts)
    system, user, after = texts
    shell, task = PROMPTS.get(system, ("", CORRECT))
    try:
        before, results = parse_user_text(task, user)
    except ValueError as error:
        return broken("schema", f"the user message {error}")
    said = content.get("meta")
    meta = {name: _shared(value) for name, value in said.items()} if isinstance(said, dict) else {}
    if meta and "group" not in meta:  # a user's row may leave it out
        content["meta"] = meta = {**meta, "group": skeleton(words(before), words(after))}
        text = json.dumps(content, ensure_ascii=False)
    return Row(file, number, text, meta, shell, before, after, task, results)


def _parsed(text: str) -> Any:
    """The JSON of a line; where the fast parser refuses it, the standard library's says where and why.

    Raises:
        ValueError: not JSON, or a key stands twice in an object.
    """
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is no UTF-8
    if len(_LIKE_A_KEY.findall(text)) != _count_keys(content):  # the fast parser takes the last of equal keys
        json.loads(text, object_pairs_hook=_require_each_key_once)
    return content


def _count_keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_count_keys, value.values()))
    return sum(map(_count_keys, value)) if isinstance(value, list) else 0


def _require_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return found


def _shared(value: Any) -> Any:
    """The same object for equal texts: the names in `meta` are few, and rows are sent from process to process."""
    return sys.intern(value) if type(value) is str else value


def _texts(content: Any) -> tuple[str, str, str] | str:
    """The three message texts, or what keeps the line from having them."""
    if not isinstance(content, dict):
        return "not an object in braces"
    if unknown := content.keys() - _ROW_KEYS:
        return f"{min(unknown)!r} belongs neither to `messages` nor to `meta`"
    messages = content.get("messages")
    if not isinstance(messages, list) or len(messages) != 3:
        return "`messages` is not a list of three: system, user, assistant"
    for message, role in zip(messages, ("system", "user", "assistant"), strict=True):
        if not isinstance(message, dict) or message.keys() != _MESSAGE_KEYS:
            return f"the {role} message is not an object with `role` and `content` alone"
        if message["role"] != role:
            return f"a message of role {message['role']!r} stands where {role!r} belongs"
        if not isinstance(message["content"], str):
            return f"the {role} message's content is not text"
    return messages[0]["content"], messages[1]["content"], messages[2]["content"]
