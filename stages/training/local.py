"""Training on this machine: the trainer as a subprocess."""

import os
import sys
from pathlib import Path

from stages.common.errors import PipelineError
from stages.common.processes import PATIENT_THREADS, program

TRAINER = Path("kaggle/train_lora.py")

ENVIRONMENT = {
    **PATIENT_THREADS,
    # Keep freed memory: the same buffers come back at every step, and blocks that malloc maps afresh each time
    # cost a third of it in page faults (3.9 instead of 5.4 examples/s on two Zen 3 cores).
    # Large pages save 6 % of a step on Sapphire Rapids; a glibc before 2.35 goes on without.
    # One arena for all lanes: those of other threads are small heaps that come and go.
    "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.hugetlb=1"
    ":glibc.malloc.arena_max=1",
    "TOKENIZERS_PARALLELISM": "true",
    "PYTHONDONTWRITEBYTECODE": "1",  # kaggle/ is a dependency of this stage: nothing may be written there
}


def train_locally(description: Path) -> None:
    """Run the trainer here to its end; its progress and its one-line errors go to this process's stderr.

    Ctrl-C ends it at once; its last checkpoint stays.

    Raises:
        PipelineError: it was killed.
        SystemExit: it failed, and has said why.
    """
    argv = [sys.executable, TRAINER, description]
    with program(argv, what="training", env={**os.environ, **ENVIRONMENT}) as trainer:
        try:
            status = trainer.wait()
        except KeyboardInterrupt:
            print(file=sys.stderr)  # the trainer's progress bar has no end of line
            raise
    if status < 0:
        raise PipelineError(
            f"the trainer was killed by signal {-status} (9 is often a lack of memory); "
            "run again: it goes on from its last checkpoint"
        )
    if status:
        raise SystemExit(status)
