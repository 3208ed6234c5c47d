"""The yardstick takes as many times as long as the machine is slower, by speed or by what else runs on it."""

import subprocess
import sys
from statistics import median

import pytest
import torch

from stages.measuring import yardstick
from stages.measuring.yardstick import REFERENCE_P95_MS, Yardstick, slowness


def test_slowness_is_that_of_the_slowest_twentieth() -> None:
    assert slowness([REFERENCE_P95_MS] * 100) == 1.0
    assert slowness([2 * REFERENCE_P95_MS] * 100) == 2.0
    assert slowness([REFERENCE_P95_MS] * 90 + [3 * REFERENCE_P95_MS] * 10) == pytest.approx(3.0)


def test_a_measurement_leaves_the_threads_of_torch_as_they_were() -> None:
    before = torch.get_num_threads()
    assert Yardstick().measure() > 0
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("cores", [1, 3, 64])
def test_the_work_is_split_over_all_cores(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardstick.os, "sched_getaffinity", lambda _: set(range(cores)))
    layers = Yardstick()._layers
    assert {layer.shape for layer in layers} == {(576, 1536 // cores)}


def test_other_programs_on_the_cores_are_seen() -> None:
    """In one process with as many busy ones as it has cores, each of which has a share of every core."""
    measured = Yardstick()
    measured.measure()
    script = "while True: pass"
    quiet, busy = [], []
    for _ in range(3):  # in turns, since something else may run here too
        quiet.append(median(measured.measure() for _ in range(5)))
        others = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2 * measured._threads)]
        try:
            busy.append(median(measured.measure() for _ in range(5)))
        finally:
            for other in others:
                other.kill()
                other.wait()
    assert median(busy) > 1.3 * median(quiet)
