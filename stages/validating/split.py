"""Train, valid, test and held-out rows: by group, drawn by hash, the same on every machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import combinations
from operator import attrgetter
from pathlib import Path

from stages.validating.answers import runs_one_of
from stages.validating.limits import limits
from stages.validating.rows import Finding, Row
from stages.validating.skeleton import digest

HELDOUT = "heldout"
_KEYS: Mapping[str, Callable[[Row], Hashable]] = {
    "group": lambda row: row.meta["group"],
    "typed line": attrgetter("asked"),
    "skeleton": attrgetter("skeleton"),
}
"""Everything that two rows of different splits may not share."""


def split_rows(rows: Sequence[Row], seed: int, heldout_tools: Sequence[str]) -> dict[str, list[Row]]:
    """The rows of each split, in an order drawn by the seed.

    A group with a row whose answer runs a held-out tool goes to `heldout`. Of the others, in the order of their
    hash, as many go to `test` and then to `valid` as fill the shares of `data/validation.yaml`, the rest to
    `train`. Groups that share a typed line or a skeleton share their fate.
    """
    runs_heldout = runs_one_of(heldout_tools)
    splits: dict[str, list[Row]] = {name: [] for name in (*limits().split_shares, HELDOUT)}
    free = {}
    for group, bundle in _bundles(rows).items():
        if any(runs_heldout(row.after) for row in bundle):
            splits[HELDOUT].extend(bundle)
        else:
            free[group] = bundle
    assigned = _assign({group: len(bundle) for group, bundle in free.items()}, seed)
    for group, bundle in free.items():
        splits[assigned[group]].extend(bundle)
    for split in splits.values():
        split.sort(key=lambda row: digest(f"{seed}:{row.shell}:{row.before}:{row.after}"))
    return splits


def _bundles(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that must stay together, because they share a key or are joined by rows that do.

    A bundle goes by its smallest group, so that its name does not hang on the order of the rows.
    """
    leader: dict[str, str] = {}

    def lead(group: str) -> str:
        while (above := leader.get(group, group)) != group:
            group = above
        return group

    for key in _KEYS.values():
        owner: dict[Hashable, str] = {}
        for row in rows:
            of_row = row.meta["group"]
            of_other = owner.setdefault(key(row), of_row)
            if of_other != of_row:  # two rows that share it join their groups
                group, other = lead(of_row), lead(of_other)
                leader[max(group, other)] = min(group, other)
    bundles: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        bundles[lead(row.meta["group"])].append(row)
    return bundles


def _assign(sizes: Mapping[str, int], seed: int) -> dict[str, str]:
    """The split of each bundle: small ones fill test and valid in the order of their hash, then larger ones."""
    total = sum(sizes.values())
    order = sorted(sizes, key=lambda group: digest(f"{seed}:{group}"))
    assigned: dict[str, str] = {}
    for name in ("test", "valid"):
        left = round(limits().split_shares[name] * total)
        small = max(limits().group_rows_any, left * limits().group_share_max)
        for pass_limit in (small, left):
            for group in order:
                if group not in assigned and sizes[group] <= min(pass_limit, left):
                    assigned[group] = name
                    left -= sizes[group]
                if left == 0:
                    break
    return {group: assigned.get(group, "train") for group in order}


def check_splits(file: Path, splits: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
    """No two splits share a group, a typed line of one shell, or a skeleton; the shares are as asked for."""
    for what, key in _KEYS.items():
        keys = [set(map(key, rows)) for rows in splits.values()]
        crossing = set().union(*(one & other for one, other in combinations(keys, 2)))
        first: dict[Hashable, tuple[str, Row]] = {}
        for name, rows in splits.items() if crossing else ():
            for row in rows:
                other, earlier = first.setdefault(key(row), (name, row))
                if other != name:
                    message = f"in {name}, but the same {what} is in {other} ({earlier.file}:{earlier.line})"
                    yield row.finding("split", message)
    total = sum(len(splits[name]) for name in limits().split_shares)
    for name, target in limits().split_shares.items():
        if not splits[name]:
            message = f"no row of {total} is left for {name}; make more (data.rows), or the groups are too large"
            yield Finding(file, 0, "split", message, "0 rows")
            continue
        share = len(splits[name]) / max(total, 1)
        if abs(share - target) > max(limits().share_tolerance, 1 / max(total, 1)):
            message = f"{name} gets {share:.2%} of the rows, {target:.2%} are asked for; the groups are too large"
            yield Finding(file, 0, "split", message, f"{len(splits[name])} of {total} rows")
