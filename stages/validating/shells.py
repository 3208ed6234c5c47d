"""What the real shells say of the answers, for those that are installed here: a sample of each."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stages.common.files import scratch_directory
from stages.common.paths import CACHE
from stages.validating.limits import limits
from stages.validating.rows import Finding, Row

READ_ONLY = {
    "bash": ["bash", "--norc", "-n"],
    "zsh": ["zsh", "-f", "-n"],
    "fish": ["fish", "--no-config", "--no-execute"],
    "tcsh": ["tcsh", "-f", "-n"],
}
"""How a shell reads a file without running it."""
_PATIENCE_S = 20.0


def check_with_shells(rows: Sequence[Row], seed: int) -> Iterator[Finding]:
    """A finding for every answer of the sample that its own shell refuses; nothing of a shell that is not here."""
    sample: list[Row] = []
    for shell, command in READ_ONLY.items():
        if shutil.which(command[0]):
            own = [row for row in rows if row.shell == shell and row.kind not in limits().no_command_kinds]
            sample += random.Random(f"{seed}:{shell}").sample(own, min(limits().shell_sample, len(own)))
    with scratch_directory(CACHE / "scripts") as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        scripts = [folder / str(number) for number in range(len(sample))]
        try:
            for row, complaint in zip(sample, pool.map(complaint_of, sample, scripts), strict=True):
                if complaint is not None:
                    yield row.finding("syntax", f"{row.shell} itself refuses the answer ({complaint})")
        finally:
            pool.shutdown(cancel_futures=True)  # a Ctrl-C need not wait for the shells that have not begun


def complaint_of(row: Row, script: Path) -> str | None:
    """The shell's first words about the row's answer, written to `script`; None where it has none."""
    script.write_text(f"{row.after}\n", encoding="utf-8")
    done = subprocess.run(
        [*READ_ONLY[row.shell], str(script)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_PATIENCE_S,
    )
    if done.returncode == 0:
        return None
    said = (done.stderr or done.stdout).replace(str(script), row.shell).strip().splitlines()
    return said[0] if said else f"exit status {done.returncode}"
