"""pip, told apart from its environment: packages from PyPI, verified by sha256, and why it could not fetch one.

pip's own settings for the index, the proxy and certificates hold (`pip config list`), those that would change what
it does with a package do not. Imports nothing that has to be installed: `stages.common.install` needs it before.
"""

import errno
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from stages.common.errors import PipelineError
from stages.common.files import scratch_directory, sha256_file
from stages.common.paths import CACHE
from stages.common.processes import program

PROGRESS_EVERY_S = 10.0
_UNWANTED = {
    *("PIP_DRY_RUN", "PIP_IGNORE_REQUIRES_PYTHON", "PIP_NO_DEPS", "PIP_PREFIX", "PIP_PYTHON", "PIP_QUIET"),
    *("PIP_REQUIREMENT", "PIP_REQUIRE_HASHES", "PIP_REQUIRE_VIRTUALENV", "PIP_ROOT", "PIP_TARGET", "PIP_USER"),
    *("PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONUSERBASE", "PYTHONWARNINGS"),
}
"""Variables that send packages elsewhere, leave some out, or hide what pip says."""

_NO_CONNECTION = re.compile(
    r"connection broken by|Failed to establish a new connection|Max retries exceeded|Could not fetch URL"
    r"|Failed to connect|timed out|not a trusted or secure host|ConnectionResetError|ProxyError|SSLError"
)
_CAUSE = re.compile(
    r"\[Errno -?\d+\] ([\w ,-]+)|(certificate verify failed|not a trusted or secure host)"
    r"|(Tunnel connection failed: [\w ]+)"
)
_DISK_FULL = os.strerror(errno.ENOSPC)
_NO_VERSION = re.compile(r"satisfies the requirement (\S+).*\(from versions: (.*)\)")


class Progress:
    """What pip is at, a line every ten seconds: nobody takes minutes of silence for work.

    In: pip's lines. Printed: `installing requirements.txt: 41 packages found, 20 s`.
    """

    def __init__(self, what: str) -> None:
        self._what, self._began = what, time.monotonic()
        self._shown = self._began
        self._found = 0
        self._now = ""

    def read(self, line: str) -> None:
        """Take notice of a line, and print one if it is time to."""
        if line.startswith("Collecting "):
            self._found += 1
            self._now = f"{self._found} {'package' if self._found == 1 else 'packages'} found"
        elif line.startswith("Installing collected packages"):
            self._now = f"unpacking {self._found} {'package' if self._found == 1 else 'packages'}"
        elif _NO_CONNECTION.search(line):
            self._now = "the package index does not answer, trying again"
        else:
            return
        now = time.monotonic()
        if now - self._shown >= PROGRESS_EVERY_S or "unpacking" in self._now:
            self._shown = now
            print(f"{self._what}: {self._now}, {now - self._began:.0f} s", flush=True)


def run_pip(*arguments: str | os.PathLike[str], python: Path | str = sys.executable, what: str) -> None:
    """Run pip to its end, in the way that this project needs it.

    Args:
        what: the work, for the progress and the error ("fetching llama-cpp-python 0.3.36").

    Raises:
        PipelineError: it failed; one line says why.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
    if kept.get("PIP_RETRIES", "") == "0":
        kept["PIP_RETRIES"] = "1"  # it mentions a broken connection only when it tries again
    progress, output = Progress(what), []
    with program(
        [python, "-I", "-m", "pip", *arguments, "--disable-pip-version-check", "--progress-bar", "off"],
        what=what,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env={**kept, "NO_COLOR": "1", "PIP_USER": "0", "PIP_NO_DEPS": "0"},
    ) as pip:
        for line in pip.stdout or ():
            output.append(line)
            progress.read(line)
    if pip.wait() != 0:
        raise PipelineError(f"{what}: {why_pip_failed(''.join(output))}")


def why_pip_failed(output: str) -> str:
    """What pip's output means.

    Where no index answers, pip warns of it and then reports "No matching distribution", as it does for a version
    that does not exist. It is the first if pip has seen no version at all.
    """
    if _DISK_FULL in output:
        return "the disk is full; free 2 GB and run again"
    unreachable = _NO_CONNECTION.search(output)
    causes = [next(filter(None, found)) for found in _CAUSE.findall(output)]
    cause = f" ({causes[-1].strip()})" if causes else ""
    missing = _NO_VERSION.search(output)
    if unreachable and (missing is None or missing[2] == "none"):
        return (
            f"the package index could not be reached{cause}; check the network, the proxy (https_proxy) and pip's "
            "index and certificate (`pip config list`), then run again"
        )
    if missing:
        here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        seen = "no version" if missing[2] == "none" else f"only {missing[2]}"
        partly = f"; one of its indexes could not be reached{cause}" if unreachable else ""
        return f"pip's index has no {missing[1]} for {here}, {seen}{partly}; look at `pip config list`"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    said = (errors or lines or ["it printed nothing"])[-1]
    return f"pip failed: {said}; if that is no wonder, look for what tells it otherwise: `pip config list`"


def pip_download(package: str, version: str, sha256: str, *, source: bool = False) -> Path:
    """Fetch one package file without its dependencies into `.cache/downloads/` and return its path.

    A file that is there already is verified again and not fetched. Nothing takes its final name before its
    digest is checked.

    Args:
        source: the sdist instead of a wheel.

    Raises:
        PipelineError: pip cannot fetch it, or its digest is not `sha256`.
    """
    kept = CACHE / "downloads" / sha256
    if kept.is_dir():
        for file in kept.iterdir():
            if sha256_file(file) == sha256:
                return file
        shutil.rmtree(kept)
    print(f"fetching {package} {version} from PyPI", flush=True)
    with scratch_directory(kept) as folder:
        form = "--no-binary" if source else "--only-binary"
        run_pip(
            *("download", "--no-deps", form, package, "--dest", folder, f"{package}=={version}"),
            what=f"fetching {package} {version} from PyPI",
        )
        [file] = folder.iterdir()
        found = sha256_file(file)
        if found != sha256:
            raise PipelineError(
                f"{file.name}: corrupted download: sha256 {found[:12]}… instead of {sha256[:12]}…; run again, and "
                "if it comes again, look at your pip index"
            )
        arrived = folder / "whole"
        arrived.mkdir()
        file.rename(arrived / file.name)
        arrived.rename(kept)
    return kept / file.name
