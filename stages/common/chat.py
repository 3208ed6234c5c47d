"""The prompt, byte for byte as both clients send it (the contract of the `correct` task)."""

STOP = "<|im_end|>"
"""Ends an answer; the clients also stop at a newline."""

SHELLS = ("bash", "zsh", "powershell", "cmd", "fish", "tcsh")


def system_prompt(shell: str) -> str:
    """The system message for one shell."""
    return f"You are a shell command corrector for {shell}. Output only the corrected command."


def render_prompt(shell: str, command: str) -> str:
    """ChatML up to the place where the answer starts; `data/chat_template.jinja` renders the same text."""
    return render_turn("system", system_prompt(shell)) + render_turn("user", command) + "<|im_start|>assistant\n"


def render_turn(role: str, content: str) -> str:
    """One closed ChatML turn, with its newline."""
    return f"<|im_start|>{role}\n{content}{STOP}\n"
