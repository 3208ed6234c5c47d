"""The learning rate over a run, and where a run's share of something is passed.

A run is so many examples. The clock has no say in it: the same commit trains the same model however fast the
machine is.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up over `warmup_share` of the run's examples, then linear decay to zero.

    >>> Schedule(examples=1000, warmup_share=0.1, peak=0.001).learning_rate(seen=40, step=20)
    0.0005
    """

    examples: int
    warmup_share: float
    peak: float

    def progress(self, seen: int) -> float:
        """0 at the start, 1 at the end."""
        return seen / self.examples

    def learning_rate(self, seen: int, step: int) -> float:
        """The rate of a step of `step` examples after `seen`, taken at its middle so that neither end is zero."""
        p = (seen + step / 2) / self.examples
        if p < self.warmup_share:
            return self.peak * p / self.warmup_share
        return self.peak * (1 - p) / (1 - self.warmup_share)


def crossed(before: float, after: float, every: float) -> bool:
    """Whether progress passed a multiple of `every` (0 = only the end)."""
    if after >= 1:
        return True
    return bool(every) and int(before / every) < int(after / every)
