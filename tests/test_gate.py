"""The gate: each limit has a case that breaks it, and what cannot be measured or compared never passes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.config import GateParams
from stages.common.files import read_json, write_json
from stages.gate import judge, overall
from stages.measuring.baseline import Baseline

LIMITS = GateParams(
    baseline="auto",
    baseline_run_sd=0.0,
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
    "machine_slowness": 1.0,
    "changed_correct_rate": 0.02,
    "danger_added_rate": 0.0,
    "runaway_rate": 0.0,
    "load_ms": 300.0,
}
BASELINE = Baseline("auto", "c0ffee", {"exact_match": 0.87, "exact_match_n": 1000, "perplexity": 4.9})


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


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "0.9", True, -0.5])
@pytest.mark.parametrize("figure", sorted(set(GOOD) - {"exact_match_n"}))
def test_a_figure_that_was_not_measured_is_red(figure: str, value: object) -> None:
    assert "red" in verdicts({figure: value}).values()


@pytest.mark.parametrize(
    ("latency", "slowness", "verdict"),
    [(499, 1.0, "green"), (990, 2.0, "green"), (1010, 2.0, "red"), (499, 0.5, "green"), (120, 0.0, "red")],
)
def test_a_slow_or_busy_machine_does_not_make_a_model_red(latency: float, slowness: float, verdict: str) -> None:
    assert verdicts({"latency_p95_ms": latency, "machine_slowness": slowness})["latency_p95_ms"] == verdict


@pytest.mark.parametrize("value", [1.5, 200])
@pytest.mark.parametrize("figure", sorted(name for name in GOOD if name.endswith(("_match", "_rate"))))
def test_a_proportion_above_one_is_red(figure: str, value: float) -> None:
    assert "red" in verdicts({figure: value}).values()


@pytest.mark.parametrize("count", [0, -1000, None, 2000.5, 1e308])
def test_a_figure_of_no_rows_is_red(count: object) -> None:
    assert verdicts({"exact_match_n": count})["exact_match_vs_baseline"] == "red"


def test_a_loss_of_exact_match_beyond_the_noise_is_red() -> None:
    better = Baseline("auto", "c0ffee", {**BASELINE.figures, "exact_match": 0.9})
    assert verdicts({"exact_match": 0.88}, better)["exact_match_vs_baseline"] == "green"
    found = verdicts({"exact_match": 0.86}, better)
    assert [name for name, verdict in found.items() if verdict == "red"] == ["exact_match_vs_baseline"]


def test_what_trainings_differ_by_anyway_is_no_loss() -> None:
    better = Baseline("auto", "c0ffee", {**BASELINE.figures, "exact_match": 0.9})
    for run_sd, verdict in ((0.0, "red"), (0.01, "green")):
        limits = LIMITS.model_copy(update={"baseline_run_sd": run_sd})
        [found] = [
            gate
            for gate in judge({**GOOD, "exact_match": 0.867}, better, limits)
            if gate.name == "exact_match_vs_baseline"
        ]
        assert found.verdict == verdict
    # 0.9 - 1.96 sqrt(0.9 x 0.1 / 1000 + 0.867 x 0.133 / 1000 + 2 x 0.01^2)
    assert found.limit == ">= 0.8605"


def test_without_a_baseline_only_the_limits_hold() -> None:
    found = verdicts({}, Baseline("auto"))
    assert found["exact_match_vs_baseline"] == found["perplexity_vs_baseline"] == "none"
    assert overall(judge(GOOD, Baseline("auto"), LIMITS)) == "green"


def test_a_baseline_that_cannot_be_read_is_no_pass() -> None:
    unknown = Baseline("nowhere", problem="git knows no 'nowhere'")
    assert overall(judge(GOOD, unknown, LIMITS)) == "incomparable"
    assert overall(judge({**GOOD, "exact_match": 0.1}, unknown, LIMITS)) == "red"


@pytest.fixture
def project(worktree: Path) -> Path:
    """A DVC repository whose first commit holds good figures of the size in hand, which the work tree betters."""
    subprocess.run(["git", "init", "-q", "-b", "main"], check=True)
    for command in ("dvc init -q", "git config user.name t", "git config user.email t@example.com"):
        subprocess.run(command.split(), check=True)
    figures(worktree, {})
    commit("baseline")
    figures(worktree, {"exact_match": 0.91})
    return worktree


def commit(message: str) -> str:
    """Commit everything; the commit's name."""
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", "commit", "-qm", message], check=True)
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()


def figures(project: Path, changes: dict) -> None:
    """Write both metrics files as the stages do, with some figures changed."""
    merged = {**GOOD, **changes}
    fidelity = {name: merged.pop(name) for name in ("perplexity", "perplexity_ratio", "kl_divergence")}
    write_json(project / "metrics/135m/correct/eval.json", {"Q4_K_M": merged})
    write_json(project / "metrics/135m/correct/fidelity.json", {"f16": {"perplexity": 4.95}, "Q4_K_M": fidelity})


def edit_params(old: str, new: str) -> None:
    params = Path("params.yaml")
    text = params.read_text(encoding="utf-8")
    assert old in text
    params.write_text(text.replace(old, new), encoding="utf-8")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "stages.gate", *arguments], capture_output=True, text=True)


def test_a_green_run_is_recorded_and_passes_the_check(project: Path) -> None:
    assert run().returncode == 0
    folder = project / "metrics/135m/correct"
    assert read_json(folder / "gate.json")["verdict"] == "green"
    assert read_json(folder / "verdict.json") == {"verdict": "green"}
    assert "| exact_match | 0.91 | >= 0.85 | - | green |" in (folder / "gate.md").read_text()
    assert run("check").returncode == 0


def test_the_verdict_says_what_it_was_compared_with_and_how(project: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    run()
    record = read_json(project / "metrics/135m/correct/gate.json")
    assert record["baseline"] == {"revision": "auto", "commit": head, "problem": None}
    shown = (project / "metrics/135m/correct/gate.md").read_text()
    assert f"Compared with {head}." in shown
    assert "samples of 1000 and 1000 rows, and of two trainings on other machines or with other seeds" in shown


def test_committing_the_figures_changes_neither_verdict_nor_baseline(project: Path) -> None:
    run()
    before = (project / "metrics/135m/correct/gate.json").read_bytes()
    commit("figures")
    assert run("check").returncode == 0
    run()
    assert (project / "metrics/135m/correct/gate.json").read_bytes() == before
    assert run("refresh").stdout == ""


def test_a_verdict_whose_baseline_has_moved_is_exit_status_2_and_judged_again(project: Path) -> None:
    edit_params("baseline_run_sd: 0.01", "baseline_run_sd: 0.0")
    run()
    figures(project, {"exact_match": 0.95})
    other = commit("better figures")
    figures(project, {"exact_match": 0.91})
    checked = run("check")
    assert checked.returncode == 2
    assert f"and the baseline is {other[:9]} by now; run `make repro`" in checked.stderr
    assert "`dvc repro` judges again" in run("refresh").stdout
    assert not (project / "metrics/135m/correct/gate.json").exists()
    run()
    assert read_json(project / "metrics/135m/correct/gate.json")["baseline"]["commit"] == other
    assert run("check").returncode == 1, "0.91 of 1,000 is significantly below 0.95"


@pytest.mark.parametrize("content", ["{}", '{"verdict": ', '{"verdict": "green", "baseline": {}}'])
def test_what_is_no_verdict_is_removed_before_dvc_judges_again(project: Path, content: str) -> None:
    path = project / "metrics/135m/correct/gate.json"
    path.write_text(content)
    assert run("check").returncode == 2
    assert run("refresh").returncode == 0
    assert not path.exists()
    assert run("refresh").stdout == ""


def test_a_red_run_is_recorded_without_failing_and_fails_the_check(project: Path) -> None:
    edit_params("baseline_run_sd: 0.01", "baseline_run_sd: 0.0")
    figures(project, {"exact_match": 0.86})
    assert run().returncode == 0
    gate = read_json(project / "metrics/135m/correct/gate.json")["gates"]["exact_match_vs_baseline"]
    assert (gate["value"], gate["baseline"], gate["verdict"]) == (0.86, 0.9, "red")
    checked = run("check")
    assert checked.returncode == 1
    assert "exact_match_vs_baseline" in checked.stderr


def test_a_null_figure_on_disk_is_red(project: Path) -> None:
    figures(project, {"perplexity": None})
    assert run().returncode == 0
    assert run("check").returncode == 1


def test_an_unknown_baseline_is_exit_status_2(project: Path) -> None:
    edit_params("baseline: auto", "baseline: no-such-branch")
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
    assert "eval.json has no readable Q4_K_M.exact_match in" in checked.stderr


def test_a_project_without_a_readable_size_or_verdict_is_exit_status_2(project: Path) -> None:
    (project / "metrics/135m/correct/gate.json").write_text("{}")
    assert run("check").returncode == 2
    edit_params("model_size: 135m", "model_size: 135n")
    assert run("check").returncode == 2


def test_outside_git_the_comparison_cannot_be_made(project: Path) -> None:
    shutil.rmtree(project / ".git")
    assert run().returncode == 0
    checked = run("check")
    assert checked.returncode == 2
    assert "git clone" in checked.stderr


def test_a_verdict_about_other_figures_is_exit_status_2(project: Path) -> None:
    run()
    figures(project, {"exact_match": 0.95})
    checked = run("check")
    assert checked.returncode == 2
    assert "eval.json on disk; run `make repro`" in checked.stderr


def test_a_missing_verdict_is_exit_status_2(project: Path) -> None:
    assert run("check").returncode == 2


def test_figures_that_are_not_json_fail_in_one_line(project: Path) -> None:
    (project / "metrics/135m/correct/eval.json").write_text('{"Q4_K_M": {')
    done = run()
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["eval", "fidelity"])
@pytest.mark.parametrize("content", ["null", "[]", '{"Q4_K_M": null}', '{"Q4_K_M": 3}'])
def test_figures_of_another_shape_fail_in_one_line(project: Path, name: str, content: str) -> None:
    path = project / f"metrics/135m/correct/{name}.json"
    path.write_text(content)
    done = run()
    assert done.returncode == 1
    assert f"{name}.json: " in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_baseline_without_figures_is_exit_status_2(project: Path) -> None:
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    subprocess.run(["git", "rm", "-rq", "--cached", "metrics"], check=True)
    subprocess.run(["git", "commit", "-qm", "none"], check=True)
    edit_params("baseline: auto", "baseline: HEAD")
    assert run().returncode == 0
    checked = run("check")
    assert checked.returncode == 2
    assert "has no figures of this size; set gate.baseline" in checked.stderr


def test_a_check_that_cannot_be_made_is_exit_status_2(project: Path) -> None:
    run()
    with Path("/dev/full").open("w") as full:
        checked = subprocess.run([sys.executable, "-m", "stages.gate", "check"], stdout=full)
    assert checked.returncode == 2


def test_the_first_figures_are_compared_with_nothing(project: Path) -> None:
    figures(project, {})
    run()
    record = read_json(project / "metrics/135m/correct/gate.json")
    assert record["baseline"]["commit"] is None
    assert record["gates"]["perplexity_vs_baseline"]["verdict"] == "none"
    assert "Compared with nothing" in (project / "metrics/135m/correct/gate.md").read_text()
    assert run("check").returncode == 0
