"""Programs that tests put in the place of real ones."""

import shlex
import sys
from pathlib import Path


def write_program(path: Path, script: Path) -> Path:
    """Write an executable that runs a Python script.

    Not by a first line that names the interpreter, which may be in a folder with a blank in its name.
    """
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(script))} "$@"\n')
    path.chmod(0o755)
    return path
