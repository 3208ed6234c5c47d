"""Stage `gate`: holds the default quant's figures to the limits and to a baseline revision.

In: metrics/<size>/<task>/{fidelity,eval}.json, params `gate`, and through `dvc metrics diff` the same files at the
baseline commit (stages/measuring/baseline.py says which). Out: metrics/<size>/<task>/gate.json, gate.md and
verdict.json. Alone: `python -m stages.gate`.

A red verdict is recorded and the stage succeeds, so that a red experiment can be compared with others.
`python -m stages.gate check` then passes judgement: exit 1 on red, 2 where the comparison could not be made or
the verdict is about other figures, or another baseline, than those there are now.

dvc cannot see git's history. So `python -m stages.gate refresh`, which `make repro` runs before `dvc repro`,
removes a verdict whose baseline is another one by now, and dvc judges again. For the same reason dvc.yaml keeps
verdicts out of dvc's run-cache.
"""

import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from stages.common import config
from stages.common.cli import run_stage
from stages.common.errors import PipelineError
from stages.common.files import read_json, read_json_object, replace_file, sha256_file, write_json
from stages.measuring.baseline import (
    Baseline,
    Figures,
    IncomparableError,
    amount,
    count,
    find_baseline,
    find_commit,
    proportion,
)

Verdict = Literal["green", "red", "none", "incomparable"]
_COMPARED = {"eval": "exact_match", "fidelity": "perplexity"}
"""The metrics files that are judged, and the figure of each that is compared with the baseline's."""
_Z_95 = 1.96


@dataclass(frozen=True)
class Gate:
    """One line of the table: a figure, its limit, the baseline's figure, and what follows from them.

    `none` means that the baseline has no such figure, so that there is nothing to compare with. `note` says where
    the limit comes from.
    """

    name: str
    value: float | None
    limit: str
    baseline: float | None
    verdict: Verdict
    note: str | None = None


def at_least(name: str, figure: float | None, limit: float) -> Gate:
    """Green if the figure is there and not below its limit."""
    return Gate(name, figure, f">= {limit:g}", None, _colour(figure is not None and figure >= limit))


def at_most(name: str, figure: float | None, limit: float) -> Gate:
    """Green if the figure is there and not above its limit."""
    return Gate(name, figure, f"<= {limit:g}", None, _colour(figure is not None and figure <= limit))


def fast_enough(figures: Figures, limit_ms: float) -> Gate:
    """Green if the latency is not above the limit of the reference machine, times how slow this one was.

    So a slow or a busy machine does not make a model red. With a limit of 500, 900 ms are green on a machine half
    as fast as the reference (`machine_slowness` 2). On a faster one 500 stay 500: what makes it faster is mostly
    more cores, of which a small model and the yardstick have not the same use.
    """
    name, latency = "latency_p95_ms", amount(figures.get("latency_p95_ms"))
    slowness = amount(figures.get("machine_slowness"))
    if latency is None or not slowness:
        return Gate(name, latency, f"<= {limit_ms:g} x machine_slowness", None, "red")
    allowed = limit_ms * max(1.0, slowness)
    note = (
        f"{limit_ms:g} ms on the reference machine, and this one took {slowness:g} times as long for the yardstick"
    )
    return Gate(name, latency, f"<= {allowed:.0f}", None, _colour(latency <= allowed), note)


def loads(figures: Figures) -> Gate:
    """Green if llama.cpp loaded the file, which shows in a time that it took."""
    load_ms = amount(figures.get("load_ms"))
    return Gate("loads", load_ms, "a time", None, _colour(load_ms is not None))


def not_below_baseline(now: Figures, baseline: Baseline, run_sd: float) -> Gate:
    """Green unless exact match fell by more than two samples and two trainings differ by chance (95 %, Wald).

    The limit is old - 1.96 sqrt(old (1 - old) / n_old + new (1 - new) / n_new + 2 run_sd^2): two proportions,
    unpooled, and the spread of training itself. `run_sd` is the standard deviation of exact match over trainings
    that differ in nothing but the seed or the kind of processor, whose sums are rounded otherwise; the difference
    of two of them has twice its variance. Both models answer much the same rows, so that the samples' part is
    larger than it need be. .88 of 1,000 is green against .90 with `run_sd` 0 and .01; .867 only with .01.
    """
    name = "exact_match_vs_baseline"
    new, new_n = proportion(now.get("exact_match")), count(now.get("exact_match_n"))
    old, old_n = proportion(baseline.figures.get("exact_match")), count(baseline.figures.get("exact_match_n"))
    if new is None or not new_n:
        return Gate(name, None, "not significantly below", old, "red")
    if baseline.problem or old is None or not old_n:
        return _uncompared(name, new, "not significantly below", baseline)
    error = math.sqrt(new * (1 - new) / new_n + old * (1 - old) / old_n + 2 * run_sd**2)
    limit = old - _Z_95 * error
    note = (
        f"{old:g} at the baseline, less {_Z_95} standard errors of {error:.4f}: of samples of {old_n:g} and "
        f"{new_n:g} rows, and of two trainings on other machines or with other seeds ({run_sd:g} each)"
    )
    return Gate(name, new, f">= {limit:.4f}", old, _colour(new >= limit), note)


def not_worse_perplexity(now: Figures, baseline: Baseline, ratio: float) -> Gate:
    """Green unless perplexity rose above `ratio` times the baseline's."""
    name = "perplexity_vs_baseline"
    new, old = amount(now.get("perplexity")), amount(baseline.figures.get("perplexity"))
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
    """All gates, for the merged figures of one quant. A figure that cannot be (NaN, 1.5, -3) is none, so red."""

    def share(name: str) -> float | None:
        return proportion(now.get(name))

    return [
        at_least("exact_match", share("exact_match"), limits.exact_match_min),
        at_least("golden_exact_match", share("golden_exact_match"), limits.golden_exact_match_min),
        at_least("promised_exact_match", share("promised_exact_match"), limits.promised_exact_match_min),
        at_least("left_as_typed_rate", share("left_as_typed_rate"), limits.left_as_typed_min),
        not_below_baseline(now, baseline, limits.baseline_run_sd),
        at_most("perplexity_ratio", amount(now.get("perplexity_ratio")), limits.perplexity_ratio_max),
        not_worse_perplexity(now, baseline, limits.baseline_perplexity_ratio_max),
        at_most("kl_divergence", amount(now.get("kl_divergence")), limits.kl_divergence_max),
        fast_enough(now, limits.latency_p95_max_ms),
        at_most("changed_correct_rate", share("changed_correct_rate"), limits.changed_correct_rate_max),
        at_most("danger_added_rate", share("danger_added_rate"), limits.danger_added_rate_max),
        at_most("runaway_rate", share("runaway_rate"), limits.runaway_rate_max),
        loads(now),
    ]


def overall(gates: list[Gate]) -> Verdict:
    """Red before incomparable before green."""
    verdicts = {gate.verdict for gate in gates}
    if "red" in verdicts:
        return "red"
    return "incomparable" if "incomparable" in verdicts else "green"


def table(record: dict[str, Any]) -> str:
    """The content of gate.json as Markdown."""
    heading = f"{record['model_size']} {record['task']} {record['quant']}: {record['verdict']}"
    rows = [f"### {heading}", "", "| gate | value | limit | baseline | verdict |", "|---|---|---|---|---|"]
    for name, gate in record["gates"].items():
        value, old = (f"{x:.4g}" if x is not None else "-" for x in (gate["value"], gate["baseline"]))
        rows.append(f"| {name} | {value} | {gate['limit']} | {old} | {gate['verdict']} |")
    baseline = record["baseline"]
    compared = baseline["problem"] or baseline["commit"] or "nothing: no other figures have been committed yet"
    notes = [f"{name}: {gate['note']}." for name, gate in record["gates"].items() if gate["note"]]
    return "\n".join([*rows, "", f"Compared with {compared}.", *notes]) + "\n"


def main() -> None:
    """Judge the figures on disk and record the verdict."""
    model, limits, sources = config.model_paths(), config.gate_params(), _sources()
    folder = model.metrics
    found = {path: read_json_object(path) for path in sources}
    evaluated = next(iter(sources))
    quant = next(iter(found[evaluated]), None)
    if quant is None:
        raise PipelineError(f"{evaluated}: holds no quant; run `dvc repro evaluate`")
    now: Figures = {}
    for path, figures in found.items():
        of_quant = figures.get(quant, {})
        if not isinstance(of_quant, dict):
            raise PipelineError(f"{path}: {quant}: no figures; delete the file and run `dvc repro`")
        now |= of_quant
    baseline = find_baseline(limits.baseline, quant, sources)
    gates = judge(now, baseline, limits)
    record = {
        "verdict": overall(gates),
        "model_size": model.size,
        "task": model.task,
        "quant": quant,
        "baseline": {
            "revision": baseline.revision,
            "commit": baseline.commit,
            "problem": baseline.problem,
        },
        "gates": {gate.pop("name"): gate for gate in map(asdict, gates)},
        "judged": {str(path): sha256_file(path) for path in sources},
    }
    with replace_file(folder / "gate.md") as file:
        file.write(table(record))
    write_json(folder / "verdict.json", {"verdict": record["verdict"]})
    write_json(folder / "gate.json", record)
    print(table(record))


def _sources() -> dict[Path, str]:
    """The metrics files of the size in hand, each with the figure that is compared."""
    return {config.model_paths().metrics / f"{name}.json": figure for name, figure in _COMPARED.items()}


def refresh() -> None:
    """Remove the verdict if its baseline is another commit by now, so that `dvc repro` judges again."""
    path = config.model_paths().metrics / "gate.json"
    if not path.is_file():
        return
    try:
        problem = _outdated_baseline(path, _recorded(path))
    except PipelineError as error:
        problem = str(error)
    if problem:
        print(f"gate: {problem}; `dvc repro` judges again")
        path.unlink()


def check() -> None:
    """Pass judgement on what is recorded: return on green, exit 1 on red, 2 where it cannot be told."""
    try:
        path = config.model_paths().metrics / "gate.json"
        record = _recorded(path)
        if problem := _other_figures(path, record) or _outdated_baseline(path, record):
            raise PipelineError(f"{problem}; run `make repro`")
    except PipelineError as error:
        print(f"gate: error: {error}", file=sys.stderr)
        sys.exit(2)
    print(table(record))
    if record["verdict"] == "red":
        red = [name for name, gate in record["gates"].items() if gate["verdict"] == "red"]
        print(f"gate: red: {', '.join(red)}; the figures are in {path}", file=sys.stderr)
        sys.exit(1)
    if record["verdict"] != "green":
        baseline = record["baseline"]
        print(
            f"gate: cannot compare with {baseline['revision']}: {baseline['problem']}; then `make repro`",
            file=sys.stderr,
        )
        sys.exit(2)


def _recorded(path: Path) -> dict[str, Any]:
    """The content of gate.json.

    Raises:
        PipelineError: it is missing or no verdict.
    """
    match read_json(path):
        case {
            "verdict": str(),
            "baseline": {"commit": _, "problem": _},
            "gates": dict(),
            "judged": dict(),
        } as record:
            return record
        case _:
            raise PipelineError(f"{path} is no verdict of this version, which `make repro` makes")


def _other_figures(path: Path, record: dict[str, Any]) -> str | None:
    """Which figures are not those that were judged; None where all are."""
    for source, digest in record["judged"].items():
        if not Path(source).is_file() or sha256_file(Path(source)) != digest:
            return f"{path} is not about the {source} on disk"
    return None


def _outdated_baseline(path: Path, record: dict[str, Any]) -> str | None:
    """Which baseline the verdict has and which it should have; None where they are the same."""
    recorded = record["baseline"]
    try:
        commit = find_commit(config.gate_params().baseline, list(_sources()))
    except IncomparableError as error:
        return None if recorded["problem"] else f"{path} cannot be checked: {error}"
    was, now = (name[:9] if name else "nothing" for name in (recorded["commit"], commit))
    return None if was == now else f"{path} compares with {was}, and the baseline is {now} by now"


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            run_stage("gate", main)
        case ["check"]:
            run_stage("gate", check, failed=2)  # 1 is a red gate
        case ["refresh"]:
            run_stage("gate", refresh)
        case _:
            sys.exit("usage: python -m stages.gate [check | refresh]")
