"""A session's machine: a folder with /kaggle/input and /kaggle/working in it, and the process that runs there.

What tells a notebook that it is not on Kaggle's own disk: `KAGGLE_INPUT_DIR` (there unset: /kaggle/input) and
`KAGGLE_WORKING_DIR` (/kaggle/working). Of this process's own environment only `_PASSED_ON` reaches it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from programs import write_program

_HERE = Path(__file__).parent
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


@dataclass(frozen=True)
class Mount:
    """Something under /kaggle/input: its place there today, its name in the layout before, how it is laid out."""

    place: str
    old_name: str
    lay_out: Callable[[Path], None]


class Sandbox:
    """One session's folder and processes. `container` names them: every process has it in its environment."""

    def __init__(self, folder: Path, container: str, gpus: tuple[str, ...]) -> None:
        self.container = container
        self.folder = folder
        self.input = folder / "kaggle/input"
        self.working = folder / "kaggle/working"
        self._bin, self._home, self._tmp = folder / "bin", folder / "home", folder / "tmp"
        for place in (self.input, self.working, self._bin, self._home, self._tmp):
            place.mkdir(parents=True)
        self._install_nvidia_smi(gpus)

    def start(self, notebook: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
        """Run a notebook; standard output is its log, what else its process says goes to `runner.err`."""
        path = self.folder / "notebook.ipynb"
        path.write_text(notebook, encoding="utf-8")
        given = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        own = {
            "PATH": os.pathsep.join([str(self._bin), str(Path(sys.executable).parent), given.get("PATH", "")]),
            "HOME": str(self._home),
            "TMPDIR": str(self._tmp),
            "KAGGLE_INPUT_DIR": str(self.input),
            "KAGGLE_WORKING_DIR": str(self.working),
            "KAGGLE_CONTAINER_NAME": self.container,
            "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        }
        with (self.folder / "runner.err").open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-P", str(_HERE / "notebook_runner.py"), str(path)],
                cwd=self.working,
                env={**given, **own, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
            )

    def kill(self) -> None:
        """End every process of the session, as removing a container does.

        Neither process groups nor the process tree would do: Jupyter gives its kernels sessions of their own, and
        an orphan has lost its place in the tree.
        """
        while processes := self._processes():
            for process in processes:
                process.kill()
            psutil.wait_procs(processes, timeout=1)

    def save(self, target: Path, suffix_lost: str | None, between: Callable[[], None]) -> None:
        """Keep what is in working: regular files only, without their modes; links and empty folders are lost.

        `between` is called before each file, for those who watch them appear.
        """
        target.mkdir(parents=True)
        for place, _, names in os.walk(self.working):
            for name in sorted(names):
                path = Path(place, name)
                if (
                    path.is_symlink()
                    or not path.is_file()
                    or (suffix_lost is not None and name.endswith(suffix_lost))
                ):
                    continue
                between()
                kept = target / path.relative_to(self.working)
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, kept)

    def remove(self) -> None:
        """Give the disk back."""
        shutil.rmtree(self.folder)

    def _processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["environ", "status"]):
            environment = process.info["environ"] or {}
            zombie = process.info["status"] == psutil.STATUS_ZOMBIE
            if environment.get("KAGGLE_CONTAINER_NAME") == self.container and not zombie:
                found.append(process)
        return found

    def _install_nvidia_smi(self, gpus: tuple[str, ...]) -> None:
        script = Path(shutil.copy(_HERE / "nvidia_smi.py", self._bin))  # beside its list of GPUs
        write_program(self._bin / "nvidia-smi", script)
        (self._bin / "gpus.json").write_text(json.dumps(gpus), encoding="utf-8")
