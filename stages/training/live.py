"""The log of a running kernel, line by line as it comes, and what the driver reads in it."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

_PROGRESS = re.compile(r"loss ([\d.]+), ([\d:]+) left")
_SESSION = re.compile(r"oops-session: (\{.*\})")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_ERROR = re.compile(r"^oops-error: (.*)", re.MULTILINE)  # not where a traceback shows the line that prints it


class LiveLog:
    """A file that a follower appends to; `new_lines` reads on where it stopped."""

    def __init__(self, follower: subprocess.Popen[bytes], path: Path) -> None:
        self._follower, self._path = follower, path
        self._read, self._rest = 0, ""

    def __enter__(self) -> "LiveLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._follower.kill()
        self._follower.wait()

    def new_lines(self) -> list[str]:
        """The whole lines that have come since the last call."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read)
            piece = file.read()
        self._read += len(piece)
        *lines, self._rest = (self._rest + _COLOUR.sub("", piece.decode("utf-8", "replace"))).split("\n")
        return [line for line in lines if line.strip()]


def progress(lines: list[str]) -> str | None:
    """Loss and time left in the newest line that tells them."""
    for line in reversed(lines):
        if found := _PROGRESS.search(line):
            return f"loss {found[1]}, {found[2]} left"
    return None


def session_number(text: str) -> int | None:
    """The session's number, which its first cell prints; the API has it nowhere."""
    found = _SESSION.search(text)
    return json.loads(found[1]).get("session") if found else None


def reason(text: str) -> str | None:
    """Why the notebook says that it ended."""
    found = _ERROR.findall(_COLOUR.sub("", text))
    return found[-1].strip() if found else None


def log_text(log: str) -> str:
    """The text of a finished run's log, which is a JSON array of pieces."""
    try:
        pieces: list[dict[str, Any]] = json.loads(log)
    except ValueError:
        return log
    return "".join(str(piece.get("data", "")) for piece in pieces if isinstance(piece, dict))
