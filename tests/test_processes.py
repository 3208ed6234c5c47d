"""Worker processes (stages/common/processes.py)."""

import subprocess
import sys
from pathlib import Path

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
