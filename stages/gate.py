"""Stage `gate`: holds the default quant's figures to the limits and to a baseline revision.

In: metrics/<size>/<task>/{fidelity,eval}.json, params `gate`, and through `dvc metrics diff` the same files at the
baseline revision. Out: metrics/<size>/<task>/gate.json and gate.md. Alone: `python -m stages.gate`.

A red verdict is recorded and the stage succeeds, so that a red experiment can be compared with others.
`python -m stages.gate check` then passes judgement: exit 1 on red, 2 where the comparison could not be made or
the verdict is about other figures than those on disk.
"""

import json
import math
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from stages.common import config
from stages.common.cli import run_stage
from stages.common.errors import PipelineError
from stages.common.files import read_json, replace_file, sha256_file, write_json

Verdict = Literal["green", "red", "none", "incomparable"]
Figures = dict[str, Any]
_SOURCES = ("eval", "fidelity")
_COMPARED = ("exact_match", "perplexity")
"""The figure of each source that is compared with the baseline's."""
_Z_95 = 1.96


@dataclass(frozen=True)
class Gate:
    """One line of the table: a figure, its limit, the baseline's figure, and what follows from them.

    `none` means that the baseline has no such figure, so that there is nothing to compare with.
    """

    name: str
    value: float | None
    limit: str
    baseline: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Baseline:
    """The figures of the baseline revision; `problem` says why they could not be had."""

    revision: str
    figures: Figures
    problem: str | None = None


def finite(value: Any) -> float | None:
    """The figure as a float; None for one that is missing, null, NaN, infinite or no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def at_least(name: str, value: Any, limit: float) -> Gate:
    """Green if the figure is there and not below its limit."""
    figure = finite(value)
    return Gate(name, figure, f">= {limit:g}", None, _colour(figure is not None and figure >= limit))


def at_most(name: str, value: Any, limit: float) -> Gate:
    """Green if the figure is there and not above its limit."""
    figure = finite(value)
    return Gate(name, figure, f"<= {limit:g}", None, _colour(figure is not None and figure <= limit))


def loads(figures: Figures) -> Gate:
    """Green if llama.cpp loaded the file, which shows in a time that it took."""
    return Gate(
        "loads",
        finite(figures.get("load_ms")),
        "a time",
        None,
        _colour(finite(figures.get("load_ms")) is not None),
    )


def not_below_baseline(now: Figures, baseline: Baseline) -> Gate:
    """Green unless exact match fell significantly: two proportions, unpooled, 95 % (Wald).

    Both are measured on much the same rows, which makes this test of independent samples a lenient one.
    """
    name = "exact_match_vs_baseline"
    new, new_n = finite(now.get("exact_match")), finite(now.get("exact_match_n"))
    old, old_n = finite(baseline.figures.get("exact_match")), finite(baseline.figures.get("exact_match_n"))
    if new is None or not new_n:
        return Gate(name, None, "not significantly below", old, "red")
    if baseline.problem or old is None or not old_n:
        return _uncompared(name, new, "not significantly below", baseline)
    error = math.sqrt(new * (1 - new) / new_n + old * (1 - old) / old_n)
    limit = old - _Z_95 * error
    return Gate(name, new, f">= {limit:.4f}", old, _colour(new >= limit))


def not_worse_perplexity(now: Figures, baseline: Baseline, ratio: float) -> Gate:
    """Green unless perplexity rose above `ratio` times the baseline's."""
    name = "perplexity_vs_baseline"
    new, old = finite(now.get("perplexity")), finite(baseline.figures.get("perplexity"))
    if new is None:
        return Gate(name, None, f"<= {ratio:g} x baseline", old, "red")
    if baseline.problem or old is None:
        return _uncompared(name, new, f"<= {ratio:g} x baseline", baseline)
    return Gate(name, new, f"<= {ratio * old:.4f}", old, _colour(new <= ratio * old))


def _uncompared(name: str, value: float, limit: str, baseline: Baseline) -> Gate:
    return Gate(name, value, limit, None, "incomparable" if baseline.problem else "none")


def _colour(passed: bool) -> Verdict:
    return "green" if passed else "red"


def judge(now: Figures, baseline: Baseline, limits: config.GateParams) -> list[Gate]:
    """All gates, for the merged figures of one quant."""
    return [
        at_least("exact_match", now.get("exact_match"), limits.exact_match_min),
        at_least("golden_exact_match", now.get("golden_exact_match"), limits.golden_exact_match_min),
        at_least("promised_exact_match", now.get("promised_exact_match"), limits.promised_exact_match_min),
        at_least("left_as_typed_rate", now.get("left_as_typed_rate"), limits.left_as_typed_min),
        not_below_baseline(now, baseline),
        at_most("perplexity_ratio", now.get("perplexity_ratio"), limits.perplexity_ratio_max),
        not_worse_perplexity(now, baseline, limits.baseline_perplexity_ratio_max),
        at_most("kl_divergence", now.get("kl_divergence"), limits.kl_divergence_max),
        at_most("latency_p95_ms", now.get("latency_p95_ms"), limits.latency_p95_max_ms),
        at_most("changed_correct_rate", now.get("changed_correct_rate"), limits.changed_correct_rate_max),
        at_most("danger_added_rate", now.get("danger_added_rate"), limits.danger_added_rate_max),
        at_most("runaway_rate", now.get("runaway_rate"), limits.runaway_rate_max),
        loads(now),
    ]


def overall(gates: list[Gate]) -> Verdict:
    """Red before incomparable before green."""
    verdicts = {gate.verdict for gate in gates}
    if "red" in verdicts:
        return "red"
    return "incomparable" if "incomparable" in verdicts else "green"


def baseline_figures(revision: str, quant: str, sources: list[Path]) -> Baseline:
    """What the metrics files held at `revision`, by `dvc metrics diff`.

    dvc exits with 0 whatever it finds, but for an unknown revision, also where a file there is broken; a file that
    was not there then has no old figures, and figures that did not change are given only with `--all`.
    """
    argv = ["dvc", "metrics", "diff", revision, "--all", "--json", "--targets", *map(str, sources)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True)
    except OSError as error:
        return Baseline(revision, {}, f"cannot start dvc: {error.strerror}")
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        return Baseline(revision, {}, lines[-1].removeprefix("ERROR: "))
    figures = {}
    for changes in json.loads(done.stdout).values():
        for name, change in changes.items():
            if name.startswith(f"{quant}.") and change.get("old") is not None:
                figures[name.removeprefix(f"{quant}.")] = change["old"]
    for source, figure in zip(sources, _COMPARED, strict=True):
        if finite(figures.get(figure)) is None and _is_in(revision, source):
            return Baseline(revision, figures, f"{source} has no readable {quant}.{figure} there")
    return Baseline(revision, figures)


def _is_in(revision: str, file: Path) -> bool:
    """Whether git has the file at the revision."""
    done = subprocess.run(["git", "cat-file", "-e", f"{revision}:./{file.as_posix()}"], capture_output=True)
    return done.returncode == 0


def table(record: dict[str, Any]) -> str:
    """The content of gate.json as Markdown."""
    heading = f"{record['model_size']} {record['task']} {record['quant']}: {record['verdict']}"
    rows = [f"### {heading}", "", "| gate | value | limit | baseline | verdict |", "|---|---|---|---|---|"]
    for name, gate in record["gates"].items():
        value, old = (f"{x:.4g}" if x is not None else "-" for x in (gate["value"], gate["baseline"]))
        rows.append(f"| {name} | {value} | {gate['limit']} | {old} | {gate['verdict']} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Judge the figures on disk and record the verdict."""
    model, limits = config.model_paths(), config.gate_params()
    folder = model.metrics
    sources = [folder / f"{name}.json" for name in _SOURCES]
    evaluated, fidelity = (read_json(path) for path in sources)
    quant = next(iter(evaluated), None)
    if quant is None:
        raise PipelineError(f"{sources[0]}: holds no quant; run `dvc repro evaluate`")
    now = {**evaluated[quant], **fidelity.get(quant, {})}
    baseline = baseline_figures(limits.baseline, quant, sources)
    gates = judge(now, baseline, limits)
    record = {
        "verdict": overall(gates),
        "model_size": model.size,
        "task": model.task,
        "quant": quant,
        "baseline": {"revision": baseline.revision, "problem": baseline.problem},
        "gates": {gate.pop("name"): gate for gate in map(asdict, gates)},
        "judged": {str(path): sha256_file(path) for path in sources},
    }
    with replace_file(folder / "gate.md") as file:
        file.write(table(record))
    write_json(folder / "gate.json", record)
    print(table(record))


def check() -> None:
    """Pass judgement on what is recorded: return on green, exit 1 on red, 2 where it cannot be told."""
    try:
        path = config.model_paths().metrics / "gate.json"
        record = read_json(path)
        judged = record["judged"]
    except PipelineError as error:
        print(f"gate: error: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyError, TypeError):
        print(f"gate: error: {path} is no verdict; run `dvc repro`", file=sys.stderr)
        sys.exit(2)
    for source, digest in judged.items():
        if not Path(source).is_file() or sha256_file(Path(source)) != digest:
            print(f"gate: {path} is not about the {source} on disk; run `dvc repro`", file=sys.stderr)
            sys.exit(2)
    print(table(record))
    if record["verdict"] == "red":
        red = [name for name, gate in record["gates"].items() if gate["verdict"] == "red"]
        print(f"gate: red: {', '.join(red)}; the figures are in {path}", file=sys.stderr)
        sys.exit(1)
    if record["verdict"] != "green":
        baseline = record["baseline"]
        print(f"gate: cannot compare with {baseline['revision']}: {baseline['problem']}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            run_stage("gate", main)
        case ["check"]:
            run_stage("gate", check)
        case _:
            sys.exit("usage: python -m stages.gate [check]")
