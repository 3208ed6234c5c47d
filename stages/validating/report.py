"""What was found, the worst first on standard error and everything in a file; and the figures of the data."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from stages.common.errors import PipelineError
from stages.common.files import replace_file
from stages.common.paths import CACHE
from stages.validating.limits import limits
from stages.validating.rows import Finding, Row

REPORT = CACHE / "validate-report.jsonl"
WORST_FIRST = [
    "utf-8", "json", "schema", "danger", "private", "golden", "contradiction", "null", "leftover", "invented",
    "syntax", "duplicate", "meta", "split", "size", "shares",
]  # fmt: skip
"""Unreadable first, then what would teach the model harm, then what would teach it nonsense, then bookkeeping."""


def report(findings: Sequence[Finding]) -> None:
    """Write all findings to the report; where there are any, show the worst and raise.

    Raises:
        PipelineError: a rule is broken; it says how often each.
    """
    ordered = sorted(findings, key=lambda finding: WORST_FIRST.index(finding.rule))
    with replace_file(REPORT) as file:
        for finding in ordered:
            record = {**vars(finding), "file": str(finding.file)}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    if not ordered:
        return
    for finding in ordered[: limits().printed]:
        print(finding, file=sys.stderr)
    counts = Counter(finding.rule for finding in ordered)
    summary = ", ".join(f"{rule} {count}" for rule, count in counts.items())
    shown = min(len(ordered), limits().printed)
    raise PipelineError(
        f"{len(ordered)} findings ({summary}); {shown} shown, all in {REPORT}; mend these rows, then run again"
    )


def figures(splits: Mapping[str, Sequence[Row]], heldout_tools: Sequence[str]) -> dict[str, Any]:
    """What `metrics/data.json` holds: counts, shares (0 to 1) and lengths in characters."""
    rows = [row for split in splits.values() for row in split]
    lengths = sorted(len(row.before) for row in rows)
    return {
        "rows": len(rows),
        "groups": len({row.meta["group"] for row in rows}),
        "tools": len({row.meta["tool"] for row in rows}),
        "heldout_tools": len(heldout_tools),
        "chars_mean": round(statistics.fmean(lengths), 2),
        "chars_p95": lengths[math.ceil(0.95 * len(lengths)) - 1],
        "chars_max": lengths[-1],
        "splits": {
            name: {"rows": len(split), "groups": len({row.meta["group"] for row in split})}
            for name, split in splits.items()
        },
        **{f"{key}_share": _shares(rows, key) for key in ("shell", "family", "kind", "source")},
    }


def _shares(rows: Sequence[Row], key: str) -> dict[str, float]:
    counts = Counter(row.meta[key] for row in rows)
    return {value: round(count / len(rows), 5) for value, count in sorted(counts.items())}
