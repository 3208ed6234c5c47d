"""The yardstick is work for all cores, slowness how long it takes; how well it fits: benchmarks/latency.py."""

import threading

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


def test_every_core_works_and_waits_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one core which is taken away is as bad for it as for a model."""
    monkeypatch.setattr(yardstick.os, "sched_getaffinity", lambda _: {0, 1, 2})
    measured = Yardstick()
    seen: list[int] = []

    class Layer:
        """In the place of each layer's weights; Python asks it where a tensor does not know how to multiply."""

        def __rmatmul__(self, rows: object) -> None:
            seen.append(threading.get_ident())

    measured._rows, measured._layers = object(), [Layer()] * 10
    measured.measure()
    per_layer = len(seen) // 10
    assert len(set(seen)) == 3
    for layer in range(10):
        assert len(set(seen[layer * per_layer : (layer + 1) * per_layer])) == 3, "nobody is a layer ahead"
