"""Loss scaling for fp16 (Micikevicius et al. 2018), for a backward pass written by hand.

fp16 loses gradients below 6e-8: the loss's gradient starts out multiplied by `value`, and the adapters' fp32
gradients are divided by it at the end. A step whose gradients overflowed is skipped and the scale halved; it
doubles after a number of good steps. In other formats it stays 1, and a gradient that is not finite is an error.
"""

from __future__ import annotations

import math

import torch

# 2^16, where torch's own GradScaler starts, costs the first steps of most runs.
_FIRST, _LARGEST = 2.0**11, 2.0**16
_GROW_AFTER = 500
# A few steps may be skipped while the scale finds its level; after that more than a hundredth means real trouble.
_FREE_SKIPS, _SKIPPED_SHARE = 10, 0.01


class LossScale:
    """The factor, and how many steps it has cost."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.adapts = dtype == torch.float16
        self.value = _FIRST if self.adapts else 1.0
        self.skipped = 0
        self._good = 0

    def accepts(self, norm: float) -> bool:
        """Whether the step of this gradient norm can be made; adjusts the scale for the next one."""
        if math.isfinite(norm):
            self._good += 1
            if self.adapts and self._good % _GROW_AFTER == 0:
                self.value = min(self.value * 2, _LARGEST)
            return True
        if self.adapts:
            self.skipped += 1
            self._good = 0
            self.value /= 2
        return False

    def skips_too_often(self, step: int) -> bool:
        """`step` steps were made or skipped."""
        return self.skipped > _FREE_SKIPS + _SKIPPED_SHARE * step

    def state(self) -> dict[str, float]:
        return {"value": self.value, "skipped": self.skipped, "good": self._good}

    def restore(self, state: dict[str, float]) -> None:
        self.value, self.skipped, self._good = state["value"], int(state["skipped"]), int(state["good"])
