"""The data card: what the rows are, for people, as Markdown; and the same as lines of CSV for the plots.

In: the splits, the shares that were asked for, the weights of typing mistakes. Out: text, and rows of tables.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from stages.validating.known import Looked
from stages.validating.rows import Row
from stages.validating.tally import Tally

SAMPLES = 4
"""Rows shown of each family."""
BIN = 10
"""Characters in a bar of the lengths."""

Table = tuple[list[str], list[list[str | float]]]
"""Column names, and the rows below them."""


def asked_and_found(tally: Tally, key: str, asked: Mapping[str, float]) -> Table:
    """The share of each value of a key of `meta`, beside the one that was asked for."""
    counts = tally.of(key)
    names = [*asked, *sorted(counts.keys() - asked.keys())]
    shares = [[name, counts[name] / max(tally.rows, 1), asked.get(name, 0.0)] for name in names]
    return [key, "share", "asked"], shares


def typing_mix(tally: Tally, weights: Mapping[str, float]) -> Table:
    """The share of each typing mistake among all typing mistakes, beside the one that people make (its weight)."""
    counts = tally.of("kind")
    total, weight = max(sum(counts[kind] for kind in weights), 1), sum(weights.values())
    return ["kind", "share", "target"], [[kind, counts[kind] / total, weights[kind] / weight] for kind in weights]


def operators(tally: Tally, wanted: Mapping[str, float]) -> Table:
    """The share of each operator among the answers that have one, beside the one that is wanted."""
    names = [*wanted, *sorted(tally.operators.keys() - wanted.keys())]
    shares = [[code(name), tally.operators[name] / max(tally.chained, 1), wanted.get(name, 0.0)] for name in names]
    return ["operator", "share", "target"], shares


def lengths(tally: Tally) -> Table:
    """How many typed lines are how long, in characters."""
    counts: Counter[int] = Counter()
    for length, rows in tally.lengths.items():
        counts[length // BIN * BIN] += rows
    return ["characters", "rows"], [[start, counts[start]] for start in range(0, max(counts) + BIN, BIN)]


def kinds(tally: Tally) -> Table:
    """How many rows have each kind of mistake, the most frequent first."""
    return ["kind", "rows"], [list(pair) for pair in tally.of("kind").most_common()]


def tools(tally: Tally, most: int = 25) -> Table:
    """The tools with the most rows."""
    return ["tool", "rows"], [list(pair) for pair in tally.of("tool").most_common(most)]


def in_no_grammar(looked: Looked, most: int = 25) -> Table:
    """What the answers of the sample run that no grammar knows, the most frequent first; share of the sample."""
    words = looked.words.most_common(most)
    return ["word", "share"], [[code(word), count / looked.answers] for word, count in words]


def samples(rows: Iterable[Row], seed: int) -> Table:
    """Some rows of each family."""
    by_family: dict[str, list[Row]] = {}
    for row in rows:
        by_family.setdefault(row.meta["family"], []).append(row)
    drawn = chain.from_iterable(
        random.Random(f"{seed}:{family}").sample(of_family, min(SAMPLES, len(of_family)))
        for family, of_family in sorted(by_family.items())
    )
    header = ["family", "kind", "shell", "typed", "answer"]
    return header, [[*(row.meta[key] for key in header[:3]), code(row.before), code(row.after)] for row in drawn]


def card(
    splits: Mapping[str, Sequence[Row]], tallies: Mapping[str, Tally], seed: int, tables: Mapping[str, Table]
) -> str:
    """The Markdown: the splits, the tables by their headings, samples."""
    rows = [row for split in splits.values() for row in split]
    sizes = [[name, tally.rows, tally.groups] for name, tally in tallies.items()]
    parts = ["# Data card", f"{len(rows)} rows, seed {seed}; made by `python -m stages.validate`, not by hand."]
    sections = {"Splits": (["split", "rows", "groups"], sizes), **tables, "Samples": samples(rows, seed)}
    for heading, table in sections.items():
        parts += [f"## {heading}", markdown(table)]
    return "\n\n".join(parts) + "\n"


def markdown(table: Table) -> str:
    """A table; shares (floats) in percent."""
    header, lines = table
    shown = [[f"{100 * cell:.2f} %" if isinstance(cell, float) else str(cell) for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *shown])


def code(text: str) -> str:
    """A command line as inline code of a Markdown table."""
    fenced = f"`` {text} ``" if "`" in text else f"`{text}`"
    return fenced.replace("|", "\\|")
