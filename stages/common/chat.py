"""The prompts, byte for byte as both clients send them: the contract of the tasks `correct` and `wit`.

`correct` (the client `fix`): the user's text is the typed line. `wit`: it is the typed line and what tools said
that the client ran, a line each, their output in one line and cut.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

STOP = "<|im_end|>"
"""Ends a turn."""

SHELLS = ("bash", "zsh", "powershell", "cmd", "fish", "tcsh")
CORRECT, WIT = "correct", "wit"
TASKS = (CORRECT, WIT)
TOOLS = ("which_binary", "list_similar", "help_output", "get_env_var", "man_page")
"""What `wit` may have run."""
OUTPUT_CHARS = 200
"""Of a tool's output as many characters are shown, then `...`."""


@dataclass(frozen=True)
class Decoding:
    """How far a client lets the model write: to one of `stops`, or to `max_tokens` new tokens. Always greedy."""

    max_tokens: int
    stops: tuple[str, ...]


DECODING = {
    CORRECT: Decoding(max_tokens=128, stops=(STOP, "\n")),
    WIT: Decoding(max_tokens=256, stops=(STOP,)),  # this client prints further lines, so a newline ends nothing
}
_SYSTEM = {
    CORRECT: "You are a shell command corrector for {shell}. Output only the corrected command.",
    WIT: "You are a shell command assistant for {shell}. Use the provided tool results to generate the correct "
    "command. /no_think",
}
_INPUT = re.compile(r"Input: (?P<typed>[^\n]*)\n\n(?:Tool results:\n(?P<results>(?:[^\n]*\n)+))?", re.DOTALL)
_RESULT = re.compile(r"- (?P<tool>\w+)\((?P<argument>.*?)\): (?P<output>.*)")


@dataclass(frozen=True)
class ToolResult:
    """What one tool said of its argument; `output` as it is shown."""

    tool: str
    argument: str
    output: str

    def __str__(self) -> str:
        return f"- {self.tool}({self.argument}): {self.output}\n"


def shown_output(output: str) -> str:
    """A tool's output as the prompt shows it: blanks and newlines counted once, cut."""
    line = " ".join(output.split())
    return line if len(line) <= OUTPUT_CHARS else line[:OUTPUT_CHARS] + "..."


def is_shown(output: str) -> bool:
    """Whether `shown_output` may have made it."""
    cut = output[:OUTPUT_CHARS] if len(output) == OUTPUT_CHARS + 3 and output.endswith("...") else output
    return len(cut) <= OUTPUT_CHARS and " ".join(cut.split()) == cut.rstrip(" ")


def system_prompt(shell: str, task: str = CORRECT) -> str:
    """The system message for one shell."""
    return _SYSTEM[task].format(shell=shell)


def user_text(task: str, typed: str, results: Sequence[ToolResult] = ()) -> str:
    """The user's message."""
    if task == CORRECT:
        return typed
    shown = "Tool results:\n" + "".join(map(str, results)) if results else ""
    return f"Input: {typed}\n\n{shown}"


def parse_user_text(task: str, text: str) -> tuple[str, tuple[ToolResult, ...]]:
    """The typed line and the tools' results of a user's message.

    Raises:
        ValueError: it is not as `user_text` writes it.
    """
    if task == CORRECT:
        return text, ()
    found = _INPUT.fullmatch(text)
    if found is None:
        raise ValueError("is not `Input: ...`, an empty line and, where there are any, `Tool results:`")
    results = []
    for line in (found["results"] or "").splitlines():
        result = _RESULT.fullmatch(line)
        if result is None:
            raise ValueError(f"holds a tool result that is not `- tool(argument): output`: {line[:80]!r}")
        results.append(ToolResult(result["tool"], result["argument"], result["output"]))
    return found["typed"], tuple(results)


def as_taught(row: dict[str, Any], task: str, left: Collection[str]) -> dict[str, Any]:
    """The row as a size learns it: the answer of a family in `left` is the typed line.

    `show all files` => `ls -a`, a request, becomes `show all files` => `show all files`.
    """
    if row["meta"]["family"] not in left:
        return row
    system, user, assistant = row["messages"]
    typed, _ = parse_user_text(task, user["content"])
    return {**row, "messages": [system, user, {**assistant, "content": typed}]}


def render_prompt(shell: str, command: str, task: str = CORRECT, results: Sequence[ToolResult] = ()) -> str:
    """ChatML up to the place where the answer starts; `data/chat_template.jinja` renders the same text."""
    return open_prompt(system_prompt(shell, task), user_text(task, command, results))


def open_prompt(system: str, user: str) -> str:
    """ChatML of the two messages, and the beginning of the assistant's."""
    return render_turn("system", system) + render_turn("user", user) + "<|im_start|>assistant\n"


def render_turn(role: str, content: str) -> str:
    """One closed ChatML turn, with its newline."""
    return f"<|im_start|>{role}\n{content}{STOP}\n"
