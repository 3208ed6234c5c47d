"""Building llama.cpp: found, fetched, built once, gone on with after a kill, and one line where it cannot be.

The builds here are of a toy with llama.cpp's layout, through the real pip, cmake, make and compiler.
"""

import errno
import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import yaml

from stages.common import llama_cpp
from stages.common.errors import PipelineError
from stages.common.progress import follow_tool

REPOSITORY = Path(__file__).parent.parent

# pip wants an sdist's metadata even when it only downloads it
BACKEND = """
import pathlib
def prepare_metadata_for_build_wheel(folder, settings=None):
    info = pathlib.Path(folder, "llama_cpp_python-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: llama-cpp-python\\nVersion: 1.0\\n")
    return info.name
"""
TOY = {
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    "PKG-INFO": "Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: 1.0\n",
    "backend.py": BACKEND,
    "vendor/llama.cpp/CMakeLists.txt": """
        cmake_minimum_required(VERSION 3.19)
        project(toy C CXX)
        set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
        file(GLOB SAID "said*.cpp")
        add_executable(toy-tool toy.cpp ${SAID})
        add_executable(toy-extra toy.cpp ${SAID})
        add_custom_target(pipeline-tools DEPENDS toy-tool)
    """,
    "vendor/llama.cpp/toy.cpp": "#include <cstdio>\nconst char *said();\nint main() { puts(said()); }\n",
    "vendor/llama.cpp/said.cpp": "const char *said() { return GREETING; }\n",
    "vendor/llama.cpp/models/huge.bin": "test data of llama.cpp that nobody needs",
}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work tree whose recipe is a toy llama.cpp, in a folder that stands for PyPI."""
    for name in (llama_cpp.EXISTING_BUILD, "CC", "CXX", "MAKEFLAGS"):
        monkeypatch.delenv(name, raising=False)
    index = tmp_path / "index"
    index.mkdir()
    sdist = index / "llama_cpp_python-1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for name, text in TOY.items():
            member = tarfile.TarInfo(f"llama_cpp_python-1.0/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    write_recipe(tmp_path, hashlib.sha256(sdist.read_bytes()).hexdigest())
    (tmp_path / "stages/common").mkdir(parents=True)
    for path in (llama_cpp.HOOK, llama_cpp.FLUSH):
        (tmp_path / path).write_text("")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_recipe(root: Path, sha256: str, flags: str = r"-DGREETING=\"hello\"") -> None:
    recipe = {
        "package": "llama-cpp-python",
        "version": "1.0",
        "sha256": sha256,
        "source": "llama_cpp_python-1.0/vendor/llama.cpp",
        "keep": ["CMakeLists.txt", "said.cpp", "toy.cpp"],
        "tools": ["toy-tool"],
        "cmake": {"CMAKE_CXX_FLAGS": flags},
    }
    (root / "data").mkdir(exist_ok=True)
    (root / llama_cpp.RECIPE).write_text(yaml.safe_dump(recipe))


def start_build() -> subprocess.Popen:
    code = "from stages.common.llama_cpp import tool; print(tool('toy-tool'))"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def programs_on_path(root: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Let PATH hold these shell scripts and nothing else."""
    folder = root / "path"
    folder.mkdir()
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_a_tool_is_built_when_it_is_asked_for_and_only_then(toy, monkeypatch):
    program = llama_cpp.tool("toy-tool")

    assert subprocess.run([program], capture_output=True, text=True).stdout == "hello\n"
    assert program.is_absolute()
    programs_on_path(toy, monkeypatch)  # no compiler any more: nothing is left to do
    assert llama_cpp.tool("toy-tool") == program


def test_a_tool_beyond_the_list_is_built_on_demand(toy):
    first = llama_cpp.tool("toy-tool")

    extra = llama_cpp.tool("toy-extra")

    assert subprocess.run([extra], capture_output=True, text=True).stdout == "hello\n"
    assert extra.parent == first.parent


def test_changed_options_make_another_build_and_keep_the_first(toy):
    first = llama_cpp.tool("toy-tool")
    write_recipe(toy, llama_cpp.recipe().sha256, r"-DGREETING=\"bye\"")

    second = llama_cpp.tool("toy-tool")

    assert subprocess.run([second], capture_output=True, text=True).stdout == "bye\n"
    assert subprocess.run([first], capture_output=True, text=True).stdout == "hello\n"


def test_two_processes_build_once(toy):
    both = [start_build(), start_build()]
    answers = [process.communicate()[0] for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert sum(answer.count("built in") for answer in answers) == 1
    assert answers[0].splitlines()[-1] == answers[1].splitlines()[-1]


@pytest.mark.parametrize("kill", [os.killpg, os.kill], ids=["with its compilers", "alone"])
def test_a_killed_build_goes_on_and_takes_no_half_written_object_for_whole(toy, kill):
    process = start_build()
    deadline = time.monotonic() + 60
    while not (objects := list(toy.glob(".cache/llama.cpp/1.0-*/build/CMakeFiles/toy-tool.dir/*.o"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kill(process.pid, signal.SIGKILL)
    process.wait()
    objects[0].write_bytes(b"half of an object file")  # newer than its source, as a killed compiler leaves it

    program = llama_cpp.tool("toy-tool")

    assert subprocess.run([program], capture_output=True, text=True).stdout == "hello\n"


def test_only_the_needed_part_of_the_source_is_unpacked(toy):
    assert sorted(path.name for path in llama_cpp.source().iterdir()) == ["CMakeLists.txt", "said.cpp", "toy.cpp"]


def test_a_moved_work_tree_builds_anew(toy, tmp_path_factory, monkeypatch):
    llama_cpp.tool("toy-tool")
    moved = tmp_path_factory.mktemp("elsewhere") / "tree"
    toy.rename(moved)
    monkeypatch.chdir(moved)

    extra = llama_cpp.tool("toy-extra")

    assert extra.is_relative_to(moved)


@pytest.mark.parametrize("name", ["a[b", "ä b", "a*b;c#d:e$f"])
def test_a_work_tree_of_any_name_builds(toy, monkeypatch, name):
    named = toy / name
    named.mkdir()
    for part in ("data", "stages"):
        (toy / part).rename(named / part)
    monkeypatch.chdir(named)

    program = llama_cpp.tool("toy-tool")

    assert program.is_relative_to(named)
    assert subprocess.run([program], capture_output=True, text=True).stdout == "hello\n"


def test_a_corrupted_download_is_one_line_and_leaves_nothing(toy):
    write_recipe(toy, "0" * 64)

    with pytest.raises(PipelineError, match=r"llama_cpp_python-1\.0\.tar\.gz: corrupted download") as raised:
        llama_cpp.source()

    assert "\n" not in str(raised.value)
    assert [path for path in (toy / ".cache").rglob("*") if path.is_file() and path.name != "lock"] == []


def test_a_missing_cmake_is_one_line_that_says_how_to_get_it(toy, monkeypatch):
    programs_on_path(toy, monkeypatch)

    with pytest.raises(PipelineError, match=r"needs cmake .*apt install cmake.*brew install cmake"):
        llama_cpp.tool("toy-tool")


def test_an_old_cmake_is_named_with_its_version(toy, monkeypatch):
    programs_on_path(toy, monkeypatch, cmake="echo cmake version 3.16.3")

    with pytest.raises(PipelineError, match=r"version 3\.16; llama\.cpp needs 3\.19"):
        llama_cpp.tool("toy-tool")


def test_a_missing_compiler_is_one_line_that_says_how_to_get_it(toy, monkeypatch):
    programs_on_path(toy, monkeypatch, cmake="echo cmake version 3.25.1", make="")

    with pytest.raises(PipelineError, match=r"needs a C\+\+ compiler .*apt install g\+\+"):
        llama_cpp.tool("toy-tool")


def test_a_compiler_named_in_the_environment_must_be_there(toy, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")

    with pytest.raises(PipelineError, match="CXX=no-such-compiler: no such program"):
        llama_cpp.tool("toy-tool")


def test_a_failing_compilation_is_reported_by_the_compilers_own_words(toy):
    write_recipe(toy, llama_cpp.recipe().sha256, flags="")

    with pytest.raises(
        PipelineError, match=r"building llama\.cpp 1\.0: make failed: .*GREETING.*build\.log"
    ) as raised:
        llama_cpp.tool("toy-tool")

    assert "\n" not in str(raised.value)


def test_a_compiler_that_speaks_another_language_is_asked_for_english(toy, monkeypatch):
    words = (
        """case "$*" in *toy.cpp*) [ "$LC_ALL" = C ] && echo error: none || echo Fehler: keiner; exit 1;; esac"""
    )
    compiler = toy / "compiler"
    compiler.write_text(f'#!/bin/sh\n{words}\nexec c++ "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")

    with pytest.raises(PipelineError, match="error: none"):
        llama_cpp.tool("toy-tool")


@pytest.mark.parametrize("place", [".", "bin", "build/bin"])
def test_an_existing_build_is_used_instead(tmp_path, monkeypatch, place):
    program = tmp_path / place / "llama-server"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.touch()
    monkeypatch.setenv(llama_cpp.EXISTING_BUILD, str(tmp_path))

    assert llama_cpp.tool("llama-server") == program.resolve()


def test_an_existing_build_without_the_tool_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv(llama_cpp.EXISTING_BUILD, str(tmp_path))

    with pytest.raises(PipelineError, match=f"LLAMA_CPP_DIR={re.escape(str(tmp_path))}: no llama-server in it"):
        llama_cpp.tool("llama-server")


def test_the_build_depends_on_the_processor(toy, monkeypatch):
    here = llama_cpp.recipe().build_key()
    monkeypatch.setattr(llama_cpp, "processor", lambda: "another one")

    assert llama_cpp.recipe().build_key() != here


def test_the_recipe_of_this_repository_is_whole(monkeypatch):
    monkeypatch.chdir(REPOSITORY)

    recipe = llama_cpp.recipe()

    assert {"llama-quantize", "llama-perplexity", "llama-imatrix", "llama-server"} <= set(recipe.tools)
    assert re.fullmatch("[0-9a-f]{64}", recipe.sha256)


def test_a_tool_that_meets_a_full_disk_says_so(tmp_path):
    with pytest.raises(OSError, match="No space left") as raised:
        follow_tool(
            ["sh", "-c", "head -c 9 /dev/zero > /dev/full"],
            what="writing",
            counter=re.compile(r"(\d+)%"),
            total=100,
            log=tmp_path / "log",
        )

    assert raised.value.errno == errno.ENOSPC
