"""How far a run is, and the learning rate there.

Progress is the greater of the share of steps done and the share of the time budget spent. Where the budget does
not bind it depends on steps alone, so that a run can be repeated bit by bit; where it does, the rate still has
decayed to zero when the time is up.
"""

from __future__ import annotations

from dataclasses import dataclass

# The clock has no say in the first part of the budget: a slow start would otherwise change the rate of the first
# steps, and with it the result, of a run that has time enough.
GRACE = 0.1


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up over `warmup_share` of the run, then linear decay to zero."""

    steps: int
    time_budget_s: float
    warmup_share: float
    peak: float

    def progress(self, step: int, elapsed_s: float) -> float:
        """0 at the start, 1 at the end; the run stops there."""
        spent = (elapsed_s / self.time_budget_s - GRACE) / (1 - GRACE)
        return min(1.0, max(step / self.steps, spent))

    def learning_rate(self, step: int, elapsed_s: float) -> float:
        """The rate of the step that is about to be made, taken at its middle so that neither end is zero."""
        p = self.progress(step, elapsed_s) + 0.5 / self.steps
        if p < self.warmup_share:
            return self.peak * p / self.warmup_share
        return self.peak * max(0.0, 1 - p) / (1 - self.warmup_share)

    def remaining_s(self, step: int, elapsed_s: float) -> float:
        """Seconds to the end at the pace so far."""
        left = self.time_budget_s - elapsed_s
        return max(0.0, min(left, elapsed_s / step * (self.steps - step)) if step else left)


def crossed(before: float, after: float, every: float) -> bool:
    """Whether progress passed a multiple of `every` (0 = only the end)."""
    if after >= 1:
        return True
    return bool(every) and int(before / every) < int(after / every)
