"""Packages from PyPI, through pip (so that its index, proxy and certificate settings hold), verified by sha256."""

import shutil
import sys
from pathlib import Path

from stages.common.errors import PipelineError
from stages.common.files import scratch_directory, sha256_file
from stages.common.paths import CACHE
from stages.common.processes import run_tool


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
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        run_tool(
            [*argv, form, package, "--dest", folder, f"{package}=={version}"],
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
