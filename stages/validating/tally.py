"""The rows counted in one pass: a million of them, in an order that no cache foresees, are slow to walk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from stages.validating.rows import Row

KEYS = ("shell", "family", "kind", "source", "tool")
"""What is counted of `meta`."""


class Tally:
    """How many rows have each value of `KEYS`, how many typed lines are how long, how many groups there are.

    And how many answers have an operator (`chained`), how many have each (`operators`).
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        values: Counter[tuple[str, ...]] = Counter()
        self.lengths: Counter[int] = Counter()
        self.operators: Counter[str] = Counter()
        self.chained = 0
        groups = set()
        for row in rows:
            meta = row.meta
            values[meta["shell"], meta["family"], meta["kind"], meta["source"], meta["tool"]] += 1
            self.lengths[len(row.before)] += 1
            groups.add(meta["group"])
            if row.operators:
                self.operators.update(row.operators)
                self.chained += 1
        self._values = values
        self.rows, self.groups = values.total(), len(groups)

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
