"""The gate: each limit has a case that breaks it, and what cannot be measured or compared never passes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.config import GateParams
from stages.common.files import read_json, write_json
from stages.gate import Baseline, judge, overall

LIMITS = GateParams(
    baseline="HEAD",
    exact_match_min=0.85,
    golden_exact_match_min=0.6,
    promised_exact_match_min=1.0,
    left_as_typed_min=0.9,
    perplexity_ratio_max=1.05,
    baseline_perplexity_ratio_max=1.05,
    kl_divergence_max=0.1,
    latency_p95_max_ms=500,
    changed_correct_rate_max=0.1,
    danger_added_rate_max=0.0,
    runaway_rate_max=0.0,
)
GOOD = {
    "exact_match": 0.9,
    "exact_match_n": 1000,
    "golden_exact_match": 0.7,
    "promised_exact_match": 1.0,
    "left_as_typed_rate": 0.95,
    "perplexity": 5.0,
    "perplexity_ratio": 1.01,
    "kl_divergence": 0.01,
    "latency_p95_ms": 120.0,
    "changed_correct_rate": 0.02,
    "danger_added_rate": 0.0,
    "runaway_rate": 0.0,
    "load_ms": 300.0,
}
BASELINE = Baseline("HEAD", {"exact_match": 0.87, "exact_match_n": 1000, "perplexity": 4.9})


def verdicts(figures: dict, baseline: Baseline = BASELINE) -> dict[str, str]:
    return {gate.name: gate.verdict for gate in judge({**GOOD, **figures}, baseline, LIMITS)}


def test_good_figures_are_green() -> None:
    assert set(verdicts({}).values()) == {"green"}


@pytest.mark.parametrize(
    ("gate", "figures"),
    [
        ("exact_match", {"exact_match": 0.8499}),
        ("golden_exact_match", {"golden_exact_match": 0.59}),
        ("promised_exact_match", {"promised_exact_match": 0.999}),
        ("left_as_typed_rate", {"left_as_typed_rate": 0.89}),
        ("perplexity_ratio", {"perplexity_ratio": 1.06}),
        ("perplexity_vs_baseline", {"perplexity": 5.2}),
        ("kl_divergence", {"kl_divergence": 0.11}),
        ("latency_p95_ms", {"latency_p95_ms": 501}),
        ("changed_correct_rate", {"changed_correct_rate": 0.11}),
        ("danger_added_rate", {"danger_added_rate": 0.001}),
        ("runaway_rate", {"runaway_rate": 0.001}),
        ("loads", {"load_ms": None}),
    ],
)
def test_each_gate_can_fail_by_itself(gate: str, figures: dict) -> None:
    found = verdicts(figures)
    assert [name for name, verdict in found.items() if verdict == "red"] == [gate]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "0.9", True])
@pytest.mark.parametrize("figure", sorted(set(GOOD) - {"exact_match_n"}))
def test_a_figure_that_was_not_measured_is_red(figure: str, value: object) -> None:
    assert "red" in verdicts({figure: value}).values()


def test_a_loss_of_exact_match_beyond_the_noise_is_red() -> None:
    better = Baseline("HEAD", {**BASELINE.figures, "exact_match": 0.9})
    assert verdicts({"exact_match": 0.88}, better)["exact_match_vs_baseline"] == "green"
    found = verdicts({"exact_match": 0.86}, better)
    assert [name for name, verdict in found.items() if verdict == "red"] == ["exact_match_vs_baseline"]


def test_without_a_baseline_only_the_limits_hold() -> None:
    found = verdicts({}, Baseline("HEAD", {}))
    assert found["exact_match_vs_baseline"] == found["perplexity_vs_baseline"] == "none"
    assert overall(judge(GOOD, Baseline("HEAD", {}), LIMITS)) == "green"


def test_a_baseline_that_cannot_be_read_is_no_pass() -> None:
    unknown = Baseline("nowhere", {}, "unknown Git revision 'nowhere'")
    assert overall(judge(GOOD, unknown, LIMITS)) == "incomparable"
    assert overall(judge({**GOOD, "exact_match": 0.1}, unknown, LIMITS)) == "red"


@pytest.fixture
def project(worktree: Path) -> Path:
    """A DVC repository whose first commit holds good figures of the size in hand."""
    for command in ("git init -q", "dvc init -q", "git config user.name t", "git config user.email t@example.com"):
        subprocess.run(command.split(), check=True)
    figures(worktree, {})
    for command in ("git add -A", "git commit -qm baseline"):
        subprocess.run(command.split(), check=True)
    return worktree


def figures(project: Path, changes: dict) -> None:
    """Write both metrics files as the stages do, with some figures changed."""
    merged = {**GOOD, **changes}
    fidelity = {name: merged.pop(name) for name in ("perplexity", "perplexity_ratio", "kl_divergence")}
    write_json(project / "metrics/135m/correct/eval.json", {"Q4_K_M": merged})
    write_json(project / "metrics/135m/correct/fidelity.json", {"f16": {"perplexity": 4.95}, "Q4_K_M": fidelity})


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "stages.gate", *arguments], capture_output=True, text=True)


def test_a_green_run_is_recorded_and_passes_the_check(project: Path) -> None:
    assert run().returncode == 0
    assert read_json(project / "metrics/135m/correct/gate.json")["verdict"] == "green"
    assert "| exact_match | 0.9 | >= 0.85 | - | green |" in (project / "metrics/135m/correct/gate.md").read_text()
    assert run("check").returncode == 0


def test_a_red_run_is_recorded_without_failing_and_fails_the_check(project: Path) -> None:
    figures(project, {"exact_match": 0.86})
    assert run().returncode == 0
    gate = read_json(project / "metrics/135m/correct/gate.json")["gates"]["exact_match_vs_baseline"]
    assert gate == {"value": 0.86, "limit": gate["limit"], "baseline": 0.9, "verdict": "red"}
    checked = run("check")
    assert checked.returncode == 1
    assert "exact_match_vs_baseline" in checked.stderr


def test_a_null_figure_on_disk_is_red(project: Path) -> None:
    figures(project, {"perplexity": None})
    assert run().returncode == 0
    assert run("check").returncode == 1


def test_an_unknown_baseline_is_exit_status_2(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("baseline: HEAD", "baseline: no-such-branch"))
    assert run().returncode == 0
    checked = run("check")
    assert checked.returncode == 2
    assert "no-such-branch" in checked.stderr


@pytest.mark.parametrize(
    "broken", ['{"Q4_K_M": {', '{"Q4_K_M": {"exact_match": null}}', '{"Q5_K_M": {"exact_match": 0.9}}']
)
def test_a_baseline_whose_figures_cannot_be_read_is_exit_status_2(project: Path, broken: str) -> None:
    (project / "metrics/135m/correct/eval.json").write_text(broken)
    subprocess.run(["git", "commit", "-qam", "broken"], check=True)
    figures(project, {})
    assert run().returncode == 0
    checked = run("check")
    assert checked.returncode == 2
    assert "eval.json has no readable Q4_K_M.exact_match there" in checked.stderr


def test_a_project_without_a_readable_size_or_verdict_is_exit_status_2(project: Path) -> None:
    (project / "metrics/135m/correct/gate.json").write_text("{}")
    assert run("check").returncode == 2
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("model_size: 135m", "model_size: 135n"))
    assert run("check").returncode == 2


def test_outside_git_the_comparison_cannot_be_made(project: Path) -> None:
    shutil.rmtree(project / ".git")
    assert run().returncode == 0
    assert run("check").returncode == 2


def test_a_verdict_about_other_figures_is_exit_status_2(project: Path) -> None:
    run()
    figures(project, {"exact_match": 0.95})
    checked = run("check")
    assert checked.returncode == 2
    assert "dvc repro" in checked.stderr


def test_a_missing_verdict_is_exit_status_2(project: Path) -> None:
    assert run("check").returncode == 2


def test_figures_that_are_not_json_fail_in_one_line(project: Path) -> None:
    (project / "metrics/135m/correct/eval.json").write_text('{"Q4_K_M": {')
    done = run()
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_baseline_is_the_committed_one_even_if_nothing_changed(project: Path) -> None:
    run()
    gates = json.loads((project / "metrics/135m/correct/gate.json").read_text())["gates"]
    assert gates["perplexity_vs_baseline"]["baseline"] == GOOD["perplexity"]
