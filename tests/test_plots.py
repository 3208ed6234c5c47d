"""`dvc plots show` and `dvc metrics show`: every plot has a meaning, and the tables fit."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from stages.evaluate import write_plots
from stages.measuring.scores import Case, Prediction, Proportion, figures

TABLES = {
    "plots/data/typing.csv": "kind,share,target\nomission,0.19,0.2\ntransposition,0.27,0.28\n",
    "plots/data/families.csv": "family,share,asked\ncommand,0.5,0.5\ncorrect,0.5,0.5\n",
    "plots/data/lengths.csv": "characters,rows\n0,10\n10,50\n",
    "plots/135m/correct/train/loss.csv": "step,examples,train_loss,learning_rate\n1,10,0.7,0.1\n2,20,0.3,0.1\n",
    "plots/135m/correct/train/valid.csv": "step,examples,valid_loss\n1,10,0.8\n2,20,0.4\n",
}


@pytest.fixture
def project(worktree: Path, root: Path) -> Path:
    """A DVC project with the data of every plot that dvc.yaml lists."""
    subprocess.run(["dvc", "init", "-q", "--no-scm"], check=True)
    shutil.copytree(root / ".dvc/plots", ".dvc/plots", dirs_exist_ok=True)
    for name, text in TABLES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    meta = {"shell": "bash", "family": "command", "kind": "omission"}
    answers = [Prediction(Case("gti", "git", meta), answer) for answer in ("git", "gti")]
    write_plots(Path("plots/135m/correct/eval"), {"test": answers, "golden": answers})
    return worktree


def listed() -> dict[str, dict[str, str]]:
    """The plots of dvc.yaml and their properties."""
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    entries = [next(iter(plot.items())) for stage in stages for plot in stage.get("plots", [])]
    return {name.replace("${model_size}", "135m").replace("${task}", "correct"): props for name, props in entries}


def shown() -> dict[str, dict]:
    """The filled Vega-Lite specification of each plot that dvc draws."""
    done = subprocess.run(["dvc", "plots", "show", "--json"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return {name: plot["content"] for name, [plot] in json.loads(done.stdout)["data"].items()}


def test_dvc_draws_every_listed_plot_under_a_title_of_its_own_and_no_other(project: Path):
    plots = listed()
    assert len({props["title"] for props in plots.values()}) == len(plots)
    specifications = shown()
    assert set(specifications) == set(plots)
    for name, props in plots.items():
        assert {props["x"], props["y"]} <= set(Path(name).read_text().splitlines()[0].split(","))
        assert props["title"] in json.dumps(specifications[name]), name
        assert props["y"] in json.dumps(specifications[name]), name


def test_what_was_made_is_drawn_beside_its_target(project: Path):
    specification = shown()["plots/data/typing.csv"]
    [fold] = [step for step in specification["transform"] if "fold" in step]
    header = TABLES["plots/data/typing.csv"].splitlines()[0].split(",")
    assert set(header[1:]) <= set(fold["fold"])
    encoding = specification["spec"]["encoding"]
    assert encoding["yOffset"]["field"] == encoding["color"]["field"] == "bar"


def test_sample_sizes_and_intervals_are_no_columns_of_dvcs_tables(project: Path):
    counted = {"exact_match": Proportion(9, 10), "danger_added_rate": Proportion(0, 10)}
    folder = Path("metrics/135m/correct")
    folder.mkdir(parents=True)
    (folder / "eval.json").write_text(json.dumps({"Q4_K_M": figures(counted)}))
    done = subprocess.run(
        ["dvc", "metrics", "show", "--md", str(folder / "eval.json")], capture_output=True, text=True, check=True
    )
    columns = [column.strip() for column in done.stdout.splitlines()[0].strip("| ").split("|")]
    assert columns == ["Path", "Q4_K_M.danger_added_rate", "Q4_K_M.exact_match", "Q4_K_M.exact_match_n"]
