"""The DAG as a user runs it: real stages, real dvc, the tiny model, in a clone of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kaggle_tree import HASTE
from own_params import write_params
from rehearsal import PATIENT
from stand_in_kaggle import StandInKaggle, alice, serve

from stages.common.files import read_json, read_jsonl, sha256_file

pytestmark = pytest.mark.slow

STAGES = ["generate", "validate", "base", "train", "convert", "quantize", "fidelity", "evaluate", "gate"]


class Clone:
    """A work tree with its own git and dvc, in which the pipeline runs."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder = folder
        private = {name: str(folder / ".dvc/tmp" / name.lower()) for name in ("DVC_SITE_CACHE_DIR",)}
        # bytecode is written, as on most machines: it must not make a stage look changed
        given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.environment = {
            **given,
            **private,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "SHELL": "/bin/sh",  # where it is dash, it stays between dvc and the stage, as without a SHELL
            "LLAMA_CPP_DIR": str(tools),
        }

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone."""
        return subprocess.run(argv, cwd=self.folder, env=self.environment, capture_output=True, text=True)

    def repro(self) -> list[str]:
        """`dvc repro`; the stages that it ran."""
        done = self.run("dvc", "repro")
        assert done.returncode == 0, done.stdout + done.stderr
        return re.findall(r"Running stage '(\w+)'", done.stdout)

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace one text in one file."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert old in text, (file, old)
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def outputs(self) -> dict[str, str]:
        """The digest of everything that must not depend on how often a run was interrupted."""
        kinds = ("models/tiny/**/*.safetensors", "models/tiny/**/*.gguf", "data/dataset/*", "data/generated.jsonl")
        files = [path for kind in kinds for path in sorted(self.folder.glob(kind))]
        return {str(path.relative_to(self.folder)): sha256_file(path) for path in files}


def clone(root: Path, folder: Path, tools: Path) -> Clone:
    """Copy what git would commit, set the tiny size and few rows, and commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    made = Clone(folder, tools)
    write_params(folder, model_size="tiny", data={"rows": 6000})
    made.edit("stages/common/chat.py", "max_tokens=128", "max_tokens=16")  # a random model seldom ends before
    made.edit("stages/common/chat.py", "max_tokens=256", "max_tokens=16")
    for command in (
        "git init -q -b main",
        "git config user.name tests",
        "git config user.email tests@example.com",
        "git add -A",
        "git commit -qm start",
    ):
        assert made.run(*command.split()).returncode == 0, command
    return made


@pytest.fixture(scope="module")
def tools() -> Path:
    """The built llama.cpp, built here if it is not yet."""
    from stages.common.llama_cpp import tool

    return tool("llama-quantize").parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tools: Path) -> Iterator[Clone]:
    """A clone in which one undisturbed `dvc repro` has run."""
    folder = tmp_path_factory.mktemp("finished")
    made = clone(Path(__file__).parents[1], folder, tools)
    assert sorted(made.repro()) == sorted(STAGES)
    assert made.run("git", "add", "-A").returncode == 0
    assert made.run("git", "commit", "-qm", "figures").returncode == 0
    yield made
    shutil.rmtree(folder, ignore_errors=True)


def test_a_run_leaves_a_whole_model_with_its_figures(finished: Clone) -> None:
    folder = finished.folder
    assert (folder / "models/tiny/correct/quants/tiny-correct-1M.gguf").stat().st_size > 100_000
    evaluated = read_json(folder / "metrics/tiny/correct/eval.json")["Q4_K_M"]
    families = [row["meta"]["family"] for _, row in read_jsonl(folder / "data/dataset/test.jsonl")]
    meant = [
        family for family in families if family not in ("request", "layout", "unfixable")
    ]  # the others stay as typed
    assert evaluated["exact_match_n"] == len(meant) < len(families)
    [sample] = [sample for sample in evaluated["samples"] if sample["figure"] == "exact_match"]
    assert sample["low"] <= evaluated["exact_match"] <= sample["high"]
    fidelity = read_json(folder / "metrics/tiny/correct/fidelity.json")
    assert 0.5 < fidelity["Q4_K_M"]["perplexity_ratio"] < 2


def test_a_random_model_is_refused_by_the_check_but_recorded_by_the_run(finished: Clone) -> None:
    checked = finished.run("python", "-m", "stages.gate", "check")
    assert checked.returncode == 1
    assert "exact_match" in checked.stderr
    assert read_json(finished.folder / "metrics/tiny/correct/gate.json")["verdict"] == "red"


def test_metrics_and_plots_are_shown(finished: Clone) -> None:
    assert "exact_match" in finished.run("dvc", "metrics", "show", "--md").stdout
    assert finished.run("dvc", "plots", "show", "-o", str(finished.folder / ".cache/plots")).returncode == 0


def test_a_second_run_runs_nothing(finished: Clone) -> None:
    assert finished.repro() == []


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("params.yaml", "exact_match_min: 0.85", "exact_match_min: 0.9", ["gate"]),
        (
            "params.yaml",
            "    - Q4_K_M\n",
            "    - Q4_K_M\n    - Q8_0\n",
            ["quantize", "fidelity", "evaluate", "gate"],
        ),
        ("params.yaml", "backend: local", "backend: kaggle", []),  # where training runs is not what is trained
        ("kaggle/adapter.py", "torch.manual_seed(seed)", "torch.manual_seed(seed + 1)", STAGES[3:]),
        ("configs/tiny.yaml", "rank: 8", "rank: 4", STAGES[3:]),
    ],
)
def test_a_change_reruns_only_what_follows_from_it(
    finished: Clone, file: str, old: str, new: str, stages: list[str]
) -> None:
    before = (finished.folder / file).read_text(encoding="utf-8")
    finished.edit(file, old, new)
    try:
        assert sorted(finished.repro()) == sorted(stages)
    finally:
        (finished.folder / file).write_text(before, encoding="utf-8")
    # what was run before the change comes back from the cache; but a verdict, which git's history is part of
    assert set(finished.repro()) <= {"gate"}


def test_make_needs_no_shell_of_the_user(finished: Clone) -> None:
    """dvc runs stages in it, but an account may have none, or one that is not installed here."""
    limits = finished.folder / "params.yaml"
    before = limits.read_text(encoding="utf-8")
    finished.edit("params.yaml", "exact_match_min: 0.85", "exact_match_min: 0.8")
    try:
        made = finished.run("env", "SHELL=/bin/false", "make", "-o", "venv", "repro")
    finally:
        limits.write_text(before, encoding="utf-8")
    assert "Running stage 'gate'" in made.stdout
    assert "exact_match" in made.stderr  # the check has judged it
    assert "failed to reproduce" not in made.stderr
    assert set(finished.repro()) <= {"gate"}


def test_another_size_and_task_leave_this_one_alone_and_coming_back_runs_nothing(finished: Clone) -> None:
    other = yaml.safe_load((finished.folder / "configs/tiny.yaml").read_text())
    other["train"]["examples"] = 100
    (finished.folder / "configs/tinier.yaml").write_text(yaml.safe_dump(other))
    before = finished.outputs()
    experiment = finished.run("dvc", "exp", "run", "-S", "model_size=tinier", "-S", "task=wit")
    assert experiment.returncode == 0, experiment.stderr
    assert (finished.folder / "metrics/tinier/wit/gate.json").is_file()
    assert (finished.folder / "models/tinier/wit/quants/tiny-wit-1M.gguf").is_file()
    finished.edit("params.yaml", "model_size: tinier", "model_size: tiny")
    finished.edit("params.yaml", "task: wit", "task: correct")
    assert finished.repro() == ["gate"]  # dvc had put the other size's models away; its cache gives them back
    assert finished.outputs() == before


def test_a_run_killed_in_every_stage_ends_as_an_undisturbed_one(
    finished: Clone, tmp_path: Path, tools: Path, root: Path
) -> None:
    killed = clone(root, tmp_path, tools)
    for stage in STAGES:
        kill_during(killed, stage)
    assert killed.run("python", "-m", "stages.common.mend").returncode == 0
    killed.repro()
    assert killed.outputs() == finished.outputs()
    assert not list(killed.folder.glob("models/**/.*.partial-*"))


def kill_during(clone: Clone, stage: str) -> None:
    """Start `dvc repro` and end dvc itself, as a power cut would, while `stage` is at work."""
    assert clone.run("python", "-m", "stages.common.mend").returncode == 0
    log = clone.folder / ".cache/killed.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as out:
        process = subprocess.Popen(
            ["dvc", "repro"], cwd=clone.folder, env=clone.environment, stdout=out, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + 300
    while f"Running stage '{stage}'" not in shown(log) and process.poll() is None:
        assert time.monotonic() < deadline, shown(log)
        time.sleep(0.05)
    time.sleep(0.2 if stage == "gate" else 1.0)  # a verdict takes less than a second
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, shown(log)
    assert f"Running stage '{stage}'" in shown(log), shown(log)


def shown(log: Path) -> str:
    """What a log holds so far; the last character may be half-written."""
    return log.read_text(encoding="utf-8", errors="replace")


def test_a_run_on_kaggle_trains_the_same_and_is_no_change_to_dvc(finished: Clone, tmp_path: Path) -> None:
    """The real trainer in the real notebook, in two processes, whose sums differ in their last bits."""
    here = read_json(finished.folder / "metrics/tiny/correct/train.json")
    owner = alice()
    haste = Path(finished.folder / ".cache/haste.yaml")
    common = yaml.safe_load((finished.folder / "stages/training/kaggle.yaml").read_text(encoding="utf-8"))
    haste.write_text(yaml.safe_dump({**common, **HASTE, **PATIENT}), encoding="utf-8")
    with serve(StandInKaggle(tmp_path, accounts=[owner])) as kaggle:
        cloud = {"TRAIN_BACKEND": "kaggle", "TRAIN_SETTINGS": str(haste)}
        environment = {**finished.environment, **kaggle.client_environment(owner, tmp_path / "home"), **cloud}
        environment["PATH"] = finished.environment["PATH"]
        done = subprocess.run(
            ["dvc", "repro", "--force", "--single-item", "train"],
            cwd=finished.folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert kaggle.runs_started() == 1
    there = read_json(finished.folder / "metrics/tiny/correct/train.json")
    assert there["gpu_hours"] > 0
    assert there["examples"] == here["examples"]
    assert there["valid_loss"] == pytest.approx(here["valid_loss"], rel=0.02)
    assert "up to date" in finished.run("dvc", "status", "train").stdout
    assert finished.run("git", "checkout", ".").returncode == 0
    assert finished.run("dvc", "checkout", "--force").returncode == 0
    assert finished.repro() == []


def test_every_stage_reads_only_its_deps_and_params(finished: Clone, tmp_path: Path) -> None:
    """Each stage runs in a folder that holds nothing but what dvc.yaml lists for it, and the plumbing."""
    for stage, entry in yaml.safe_load((finished.folder / "dvc.yaml").read_text())["stages"].items():
        sandbox = tmp_path / stage
        furnish(sandbox, finished.folder, entry)
        argv = entry["cmd"].split()
        done = subprocess.run(argv, cwd=sandbox, env=finished.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{stage}: {done.stderr}"
        for kind in ("outs", "metrics", "plots"):
            for output in entry.get(kind, []):
                name = output if isinstance(output, str) else next(iter(output))
                assert (sandbox / of_tiny(name)).exists(), f"{stage}: {name}"
        shutil.rmtree(sandbox)


PLUMBING = [
    "__init__", "errors", "cli", "files", "paths", "config", "processes", "progress", "downloads", "llama_cpp",
    "inputs", "interrupts",
]  # fmt: skip
"""Modules of stages/common that, as stages/training, shape no result; no stage lists them (see dvc.yaml)."""


def of_tiny(name: str) -> str:
    """A path of dvc.yaml with its variables filled."""
    return name.replace("${model_size}", "tiny").replace("${task}", "correct")


def furnish(sandbox: Path, origin: Path, entry: dict) -> None:
    """Copy the plumbing, the listed deps and the listed parameters of one stage."""
    plumbing = ["stages/__init__.py", "stages/training", "dvc.yaml", ".dvcignore"]
    plumbing += [*(f"stages/common/{name}.py" for name in PLUMBING)]
    names = [*plumbing, *entry["deps"]]
    for name in (of_tiny(name) for name in names):
        target = sandbox / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (origin / name).is_dir():
            shutil.copytree(origin / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(origin / name, target)
    listed = {"params.yaml": ["model_size"], "configs/tiny.yaml": []}
    for param in entry.get("params", []):
        if isinstance(param, str):
            listed["params.yaml"].append(param)
        else:
            listed["configs/tiny.yaml"] += [key.split(".")[0] for key in next(iter(param.values()))]
    (sandbox / "configs").mkdir()
    for file, keys in listed.items():
        content = yaml.safe_load((origin / file).read_text(encoding="utf-8"))
        (sandbox / file).write_text(yaml.safe_dump({key: content[key] for key in set(keys)}), encoding="utf-8")
