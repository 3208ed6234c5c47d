"""Progress bars: of a long-running program, by its own output, and of the answers to many requests."""

import errno
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.common.errors import PipelineError
from stages.common.processes import program

_FULL_BYTES = 4 << 20  # what is left of a disk on which a model's next tensor did not fit
_TAIL = 1 << 12  # characters kept to find a counter that the pipe has cut in two


class AnswerBar(tqdm):
    """A bar of requests whose time left follows from the answers after the first `warm_up`; `?` until then.

    The first answers of a server come late and at once: each slot reads its whole prompt first. Counted in, they
    promised 2:35:02 for two minutes of work.
    """

    def __init__(self, *args: Any, warm_up: int, **options: Any) -> None:
        self._warm_up = warm_up
        self._warm: tuple[int, float] | None = None
        super().__init__(*args, **options)

    def update(self, n: float | None = 1) -> bool | None:
        """Count `n` more answers."""
        if self._warm is None and self.n + n >= self._warm_up:
            self._warm = (self.n + n, time.monotonic())
        return super().update(n)

    @property
    def format_dict(self) -> dict[str, Any]:
        """What tqdm shows; a rate of 0 is shown as none."""
        rate = 0.0
        if self._warm is not None:
            answers, since = self._warm
            rate = (self.n - answers) / max(time.monotonic() - since, 1e-9)
        return {**super().format_dict, "rate": rate}


def follow_tool(
    argv: Sequence[str | os.PathLike[str]],
    *,
    what: str,
    counter: re.Pattern[str],
    total: int | re.Pattern[str] | None = None,
    log: Path,
    blame: re.Pattern[str] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    writes: Path | None = None,
    keep_open: Sequence[int] = (),
) -> str:
    """Run a program to its end under a progress bar; return what it wrote (both streams), also kept in `log`.

    Args:
        what: the work, for the bar and for the error ("quantizing to Q4_K_M").
        counter: finds the program's own count of work done: group 1, of `total` or else of group 2.
        total: the number that stands for all work, or what finds it in the output (group 1).
        blame: finds the line that says why the program failed; its last line where there is none.
        writes: the folder that it writes to, asked for free space when it fails: few programs name a full disk.
        keep_open: file descriptors to pass on, so that a lock lives as long as the program does.

    Raises:
        PipelineError: it fails or cannot be started.
        OSError: it met a full disk (`ENOSPC`).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with program(
        argv,
        what=what,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(env) if env is not None else None,
        cwd=cwd,
        pass_fds=tuple(keep_open),
    ) as process:
        _show(process, what, counter, total, log)
    output = log.read_text(encoding="utf-8", errors="replace")
    if process.returncode != 0:
        if "No space left on device" in output or (writes and _is_full(writes)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(writes or log.parent))
        raise PipelineError(f"{what}: {Path(argv[0]).name} failed: {_reason(output, blame)} (all of it: {log})")
    return output


def _show(
    process: subprocess.Popen[bytes],
    what: str,
    counter: re.Pattern[str],
    total: int | re.Pattern[str] | None,
    log: Path,
) -> None:
    """Move the bar along with the counters in the program's output until the output ends."""
    interval = 0.2 if sys.stderr.isatty() else 10.0  # a log file wants lines, not a film
    tail = ""
    known = total if isinstance(total, int) else None
    with log.open("wb") as kept, tqdm(total=known, desc=what, mininterval=interval) as bar:
        while piece := os.read(process.stdout.fileno(), 1 << 16):
            kept.write(piece)
            tail = (tail + piece.decode("utf-8", "replace"))[-_TAIL:]
            if isinstance(total, re.Pattern) and (announced := total.search(tail)):
                bar.total = int(announced[1])
            if counted := list(counter.finditer(tail)):
                if counter.groups > 1:
                    bar.total = int(counted[-1][2])
                bar.update(int(counted[-1][1]) - bar.n)
    process.wait()


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < _FULL_BYTES


def _reason(output: str, blame: re.Pattern[str] | None) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    blamed = [line for line in lines if blame and blame.search(line)]
    return (blamed[:1] or lines[-1:] or ["it printed nothing"])[0]
