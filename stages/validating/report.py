"""What was found, the worst first on standard error and everything in a file; and the figures of the data."""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from stages.common.errors import PipelineError
from stages.common.files import replace_file
from stages.common.paths import CACHE
from stages.validating.limits import limits
from stages.validating.rows import Finding
from stages.validating.tally import Tally

REPORT = CACHE / "validate-report.jsonl"
WORST_FIRST = [
    "utf-8", "json", "schema", "danger", "private", "golden", "contradiction", "null", "mistyped", "fixable",
    "leftover", "invented", "foreign", "grammar", "syntax", "edits", "form", "duplicate", "meta", "split", "size",
    "repetition", "shares",
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
            # a file's name may be no UTF-8
            file_name = os.fsencode(finding.file).decode("utf-8", errors="backslashreplace")
            record = {**vars(finding), "file": file_name}
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


def figures(
    tallies: Mapping[str, Tally], heldout_tools: Sequence[str], known_share: float, ceiling: float
) -> dict[str, Any]:
    """What `metrics/data.json` holds, out of the splits' tallies: counts, shares (0 to 1), characters.

    `ceiling`: the highest exact match that the test split admits. The splits and the shares of each shell, family,
    kind, source and operator are lists, since dvc shows every number in a mapping as a column, but none in a list.
    """
    everything = sum(tallies.values(), Tally(()))
    lengths = sorted(everything.lengths.elements())
    return {
        "rows": everything.rows,
        "groups": everything.groups,
        "tools": len(everything.of("tool")),
        "heldout_tools": len(heldout_tools),
        "known_share": round(known_share, 5),
        "exact_match_ceiling": round(ceiling, 5),
        "chained_share": round(everything.chained / everything.rows, 5),
        "chars_mean": round(statistics.fmean(lengths), 2),
        "chars_p95": lengths[math.ceil(0.95 * len(lengths)) - 1],
        "chars_max": lengths[-1],
        "splits": [{"split": name, "rows": tally.rows, "groups": tally.groups} for name, tally in tallies.items()],
        **{
            f"{key}_shares": _shares(everything.of(key), everything.rows)
            for key in ("shell", "family", "kind", "source")
        },
        "operator_shares": _shares(everything.operators, everything.chained),
    }


def _shares(counts: Mapping[str, int], of: int) -> list[dict[str, Any]]:
    return [{"name": name, "share": round(count / of, 5)} for name, count in sorted(counts.items())]
