"""How slow this machine is at this moment, so that a limit in milliseconds asks the same of every machine.

    yardstick = Yardstick()
    slowness(yardstick.measure() for _ in range(100))  # 1.0 on the reference machine; 2.0 there beside a busy loop

A fixed piece of work of the kind that a model's layers are: products of matrices, split over all cores, whose
threads wait for each other after each. It is measured between the requests whose latency is judged, so that it
meets what they meet: slow cores, and other programs on them. Beside a busy loop on two cores it takes 2.0 times as
long; the requests took 1.7 to 2.4 times as long in several runs (benchmarks/latency.py).
"""

import os
import threading
import time
from collections.abc import Iterable

import torch

from stages.common.metrics import percentile

REFERENCE_P95_MS = 35.0
"""The 95th percentile of `measure` on the reference machine: two Zen 5 cores with nothing else to do."""
_ROWS, _WIDTH, _HEIGHT = 96, 576, 1536  # as in a layer of the 135m
_LAYERS, _PRODUCTS = 10, 4


class Yardstick:
    """The work, split over as many threads as this process has cores."""

    def __init__(self) -> None:
        self._threads = len(os.sched_getaffinity(0))
        # of more threads than columns each still has one
        share = max(1, _HEIGHT // self._threads)
        self._rows = torch.ones(_ROWS, _WIDTH)
        self._layers = [torch.ones(_WIDTH, share) for _ in range(_LAYERS)]

    def measure(self) -> float:
        """Milliseconds that the work takes now."""
        barrier = threading.Barrier(self._threads)
        others = [threading.Thread(target=self._work, args=(barrier,)) for _ in range(self._threads - 1)]
        before = torch.get_num_threads()
        started = time.perf_counter()
        for thread in others:
            thread.start()
        self._work(barrier)
        for thread in others:
            thread.join()
        took = time.perf_counter() - started
        torch.set_num_threads(before)
        return 1000 * took

    def _work(self, barrier: threading.Barrier) -> None:
        torch.set_num_threads(1)  # this thread's own products are not split again
        for layer in self._layers:
            for _ in range(_PRODUCTS):
                self._rows @ layer
            barrier.wait()


def slowness(took_ms: Iterable[float]) -> float:
    """How many times as long the yardstick took as on the reference machine, by the 95th percentile of each."""
    return percentile(list(took_ms), 95) / REFERENCE_P95_MS
