"""Statistics that go with a figure: an interval beside every proportion, percentiles of a latency."""

import math
from collections.abc import Sequence

Z_95 = 1.959963984540054
"""The standard normal quantile of a two-sided 95 % interval."""


def wilson_interval(successes: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval of a proportion, as `(low, high)` within [0, 1].

    It holds its level near 0 and 1 and for small samples, where the plain normal interval collapses to a point
    (E. B. Wilson, JASA 22, 1927, 209-212). Of no trials nothing is known: `(0.0, 1.0)`.

    Raises:
        ValueError: `successes` is not between 0 and `total`.
    """
    if not 0 <= successes <= total:
        raise ValueError(f"{successes} successes of {total} trials")
    if total == 0:
        return 0.0, 1.0
    share = successes / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    scale = 1 + z * z / total
    # at the two ends the exact bound is 0 or 1, which floating point misses by one unit
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == total else (centre + spread) / scale
    return low, high


def percentile(values: Sequence[float], percent: float) -> float:
    """The `percent`th percentile (0 to 100), linear between the two nearest ranks (as numpy's default).

    Raises:
        ValueError: `values` is empty or `percent` is outside 0..100.
    """
    if not values:
        raise ValueError("a percentile of no values")
    if not 0 <= percent <= 100:
        raise ValueError(f"a percentile of {percent} %")
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = math.ceil(position)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def finite_or_none(value: float) -> float | None:
    """`value`, or None (JSON's null) for a NaN or an infinity: the gate holds a null for red, never for a pass."""
    return value if math.isfinite(value) else None
