"""A step's rows in several lanes: threads that go through the model at the same time, each with rows of its own.

In: rows of a step, and decoders that share all but their gradients (`Adapter.attach`). Out: the step's loss, and
each lane's gradient in its own vector.

Why not leave the cores to torch, which splits every product among them: products as small as these gain half of a
second core (134 GFLOP/s on two Zen 4 cores, 82 on one), all that is between them less, and at every one of 3,000
splits a step each core waits for the slower. Lanes meet once a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from decoder import Decoder
from packing import Example, Row, Step, build
from torch import Tensor

Item = TypeVar("Item")


class Lanes:
    """As many threads as decoders; what each computes does not depend on how fast the others are.

    With one decoder everything happens in the caller's thread.
    """

    def __init__(self, decoders: Sequence[Decoder], device: torch.device) -> None:
        self._decoders, self._device = decoders, device
        threads = torch.get_num_threads()  # a new thread would take all cores for its products
        self._pool = ThreadPoolExecutor(len(decoders), "lane", torch.set_num_threads, (threads,))

    def loss_and_gradients(
        self, examples: Sequence[Example], rows: Sequence[Row], weight: float, share: float
    ) -> Tensor:
        """The summed loss of the rows; each lane adds `weight` times its rows' gradient to its decoder's.

        Of each lane's examples the `share` with the greatest losses goes through the backward pass.
        """

        def work(decoder: Decoder, lane: Sequence[Row]) -> Tensor:
            return decoder.loss_and_gradients(build(examples, lane).to(self._device), weight, share)

        return self._sum(work, (rows[number :: len(self._decoders)] for number in range(len(self._decoders))))

    def loss(self, steps: Sequence[Step]) -> Tensor:
        """The summed loss of the steps."""

        def work(decoder: Decoder, lane: Sequence[Step]) -> Tensor:
            return torch.stack([decoder.loss(step.to(self._device)) for step in lane]).sum()

        return self._sum(work, (steps[number :: len(self._decoders)] for number in range(len(self._decoders))))

    def _sum(self, work: Callable[[Decoder, Sequence[Item]], Tensor], shares: Iterable[Sequence[Item]]) -> Tensor:
        """The sum of what `work` makes of each lane's share, in the order of the lanes."""
        busy = [(decoder, share) for decoder, share in zip(self._decoders, shares, strict=True) if share]
        if len(self._decoders) == 1:
            made = [work(*each) for each in busy]
        else:
            made = list(self._pool.map(lambda each: work(*each), busy))
        return sum(made, start=torch.zeros((), device=self._device))
