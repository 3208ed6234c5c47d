"""The rows counted in one pass: a million of them, in an order that no cache foresees, are slow to walk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter, itemgetter

from stages.validating.rows import Row

KEYS = ("shell", "family", "kind", "source", "tool")
"""What is counted of `meta`."""


class Tally:
    """How many rows have each value of `KEYS`, how many typed lines are how long, how many groups there are.

    And how many answers have an operator (`chained`), how many have each (`operators`).
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        metas = list(map(attrgetter("meta"), rows))
        self._values: Counter[tuple[str, ...]] = Counter(map(itemgetter(*KEYS), metas))
        self.lengths = Counter(map(len, map(attrgetter("before"), rows)))
        chained = list(filter(None, map(attrgetter("operators"), rows)))
        self.operators = Counter(chain.from_iterable(chained))
        self.chained = len(chained)
        self.rows, self.groups = len(rows), len(set(map(itemgetter("group"), metas)))

    def of(self, key: str) -> Counter[str]:
        """Rows by the value of one key, in the order of their first row."""
        at = KEYS.index(key)
        counts: Counter[str] = Counter()
        for values, count in self._values.items():
            counts[values[at]] += count
        return counts

    def __add__(self, other: Tally) -> Tally:
        """Both together; no group is in two splits."""
        both = Tally(())
        both._values, both.lengths = self._values + other._values, self.lengths + other.lengths
        both.operators, both.chained = self.operators + other.operators, self.chained + other.chained
        both.rows, both.groups = self.rows + other.rows, self.groups + other.groups
        return both
