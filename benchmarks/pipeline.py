"""Seconds and peak memory of every stage, and what a `dvc repro` costs in which nothing changed.

Run by hand from the repository's root: `python -m benchmarks.pipeline [--size tiny]`. Works in a temporary clone
of the last commit, so that the work tree and its results stay as they are; the size 135m takes half an hour on
two cores, tiny two minutes. Memory is the sum over a stage's processes of what each holds, shared pages split
among their holders (PSS). Prints a table and JSON.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import yaml
from tqdm import tqdm

from stages.common.cli import run_stage
from stages.common.config import model_size
from stages.common.errors import PipelineError
from stages.common.llama_cpp import tool

ROUNDS = 5
SAMPLE_S = 0.1


@dataclass(frozen=True)
class Cost:
    """What a stage took."""

    seconds: float
    peak_mb: float


def clone(folder: Path, size: str) -> dict[str, str]:
    """Clone the last commit into `folder`, set the size, and return the environment for commands there."""
    subprocess.run(["git", "clone", "-q", ".", str(folder)], check=True)
    params = folder / "params.yaml"
    text = re.sub(r"(?m)^model_size: \S+", f"model_size: {size}", params.read_text(encoding="utf-8"))
    params.write_text(text, encoding="utf-8")
    return {
        **os.environ,
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site"),
        "LLAMA_CPP_DIR": str(tool("llama-quantize").parent),
    }


def measure(argv: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Cost:
    """Run a command to its end; its peak memory is that of the processes below it, not its own."""
    started, peak = time.perf_counter(), 0
    with (folder / ".cache-benchmark.log").open("ab") as log:
        process = psutil.Popen(argv, cwd=folder, env=dict(environment), stdout=log, stderr=log)
        while ended(process, SAMPLE_S) is None:
            peak = max(peak, memory_below(process))
    if process.returncode != 0:
        last = (folder / ".cache-benchmark.log").read_text(encoding="utf-8", errors="replace").splitlines()[-1]
        raise PipelineError(f"{' '.join(argv)} failed with exit status {process.returncode}: {last}")
    return Cost(round(time.perf_counter() - started, 2), round(peak / 1e6, 1))


def ended(process: psutil.Popen, patience_s: float) -> int | None:
    """The exit status of a process, or None if it still runs after `patience_s`."""
    try:
        return process.wait(patience_s)
    except psutil.TimeoutExpired:
        return None


def memory_below(process: psutil.Process) -> int:
    """Bytes that the descendants of a process hold now."""
    held = 0
    try:
        for child in process.children(recursive=True):
            held += child.memory_full_info().pss
    except psutil.NoSuchProcess:
        return 0  # one has just ended: the next sample tells
    return held


def unchanged(folder: Path, environment: Mapping[str, str]) -> dict[str, float]:
    """Median seconds of a `dvc repro` that runs nothing and of dvc's own start, taken in turns."""
    ways = {"dvc repro": ["dvc", "repro"], "dvc's own start": ["dvc", "--version"]}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, argv in ways.items():
            seconds[name].append(measure(argv, folder, environment).seconds)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(size: str, costs: Mapping[str, Cost], nothing: Mapping[str, float]) -> str:
    """The tables and, below them, the same as JSON."""
    lines = [f"{'stage':12} {'seconds':>9} {'peak MB':>9}"]
    lines += [f"{name:12} {cost.seconds:9.1f} {cost.peak_mb:9.1f}" for name, cost in costs.items()]
    lines += ["", f"{'nothing changed':16} {'seconds':>9}"]
    lines += [f"{name:16} {seconds:9.2f}" for name, seconds in nothing.items()]
    figures = {"stages": {name: asdict(cost) for name, cost in costs.items()}, "nothing_changed_s": nothing}
    return "\n".join([*lines, json.dumps({"model_size": size, **figures})])


def main() -> None:
    """Measure one size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default=model_size(), help="a name in configs/ (default: that of params.yaml)")
    size = parser.parse_args().size
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "clone"
        environment = clone(folder, size)
        costs = {
            stage: measure(["dvc", "repro", "--single-item", "--force", stage], folder, environment)
            for stage in tqdm(stages, desc="stages")
        }
        print(report(size, costs, unchanged(folder, environment)))


if __name__ == "__main__":
    run_stage("benchmark", main)
