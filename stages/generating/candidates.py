"""Whether a typo can be undone: which words stand at a place of the grammar, how popular, how near."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rapidfuzz import process
from rapidfuzz.distance import OSA


@dataclass(frozen=True)
class Candidates:
    """The words that may stand at one place, lower case where the shell ignores case, with their popularity."""

    weights: Mapping[str, float]
    names: tuple[str, ...]
    by_length: Mapping[int, Sequence[str]]
    fold: bool

    @classmethod
    def of(cls, weights: Mapping[str, float], *, fold: bool) -> Candidates:
        """Candidates out of `word -> popularity`."""
        if fold:
            folded: dict[str, float] = {}
            for word, weight in weights.items():
                folded[word.lower()] = max(weight, folded.get(word.lower(), 0.0))
            weights = folded
        by_length: dict[int, list[str]] = {}
        for word in weights:
            by_length.setdefault(len(word), []).append(word)
        return cls(weights, tuple(weights), by_length, fold)

    def __contains__(self, word: str) -> bool:
        return (word.lower() if self.fold else word) in self.weights

    def means(self, typed: str, right: str, tie_ratio: float) -> bool:
        """Whether a reader would take `typed` for `right` and for nothing else.

        It must be no candidate itself, nothing may be nearer (optimal string alignment) than `right`, and
        nothing as near may have at least 1/`tie_ratio` of its popularity.
        """
        if self.fold:
            typed, right = typed.lower(), right.lower()
        if typed in self.weights or typed == right:
            return False
        distance = OSA.distance(typed, right)
        limit = self.weights.get(right, 1.0) / tie_ratio
        for length in range(len(typed) - distance, len(typed) + distance + 1):  # no others are as near
            names = self.by_length.get(length, ())
            near = process.extract(typed, names, scorer=OSA.distance, score_cutoff=distance, limit=None)
            for name, found, _ in near:
                if name != right and (found < distance or self.weights[name] >= limit):
                    return False
        return True
