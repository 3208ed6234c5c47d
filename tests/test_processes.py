"""Worker processes (stages/common/processes.py)."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FAILS_WITH_A_FULL_QUEUE = """
import time
from stages.common.processes import worker_pool
with worker_pool(int) as pool:
    for _ in range(50):
        pool.submit(time.sleep, 60)
        pool.submit(len, bytes(5_000_000))  # more than a pipe holds
    time.sleep(0.5)
    raise RuntimeError("the block failed")
"""


def test_a_block_that_fails_ends_though_much_waits_for_the_workers() -> None:
    """The thread that feeds the workers would wait for ever for one that reads (CPython #94777)."""
    argv = [sys.executable, "-c", FAILS_WITH_A_FULL_QUEUE]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "the block failed" in done.stderr


THREADS_OF_TORCH = """
import os
import sys
from stages.common.processes import load_torch
seen = set()
def seen_by_torch(event, arguments):
    if event == "import" and arguments[0].startswith("torch."):
        seen.add(os.environ["GOMP_SPINCOUNT"])
sys.addaudithook(seen_by_torch)
load_torch()
print(*seen)
print(os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(("own", "seen"), [(None, ["20000", "None"]), ("77", ["77", "77"])])
def test_the_threads_of_torch_are_patient_and_those_of_a_child_are_its_own_matter(
    monkeypatch: pytest.MonkeyPatch, own: str | None, seen: list[str]
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if own:
        monkeypatch.setenv("GOMP_SPINCOUNT", own)
    argv = [sys.executable, "-c", THREADS_OF_TORCH]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == seen
