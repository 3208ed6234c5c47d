"""`make rehearse`: the whole way to Kaggle and back on this machine, without an account and without quota.

A Kaggle on loopback, the real client, the real notebook and trainer, the tiny model on the processor. The driver
is killed on the way, as when a laptop is lost, and goes on. Prints what happens, with the seconds.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml
from kaggle_tree import ROOT, Tree
from own_params import write_params
from stand_in_kaggle import StandInKaggle, alice, serve

ROWS = 6000  # fewer do not fill every family's share
EXAMPLES = 300
PATIENT = {
    "session_limit_s": 600,
    "margin_s": 20,
    "poll_s": 3,
    "log_reconnect_s": 3,
    "report_s": 2,
    "call_limit_s": 30,
}

_BEGAN = time.monotonic()


def tell(line: str) -> None:
    """One line of the timeline."""
    print(f"{time.monotonic() - _BEGAN:6.1f} s  {line.rstrip()}", flush=True)


def make_inputs(tree: Tree) -> None:
    """Rows and base, by the pipeline's own stages."""
    shutil.copytree(
        ROOT / "data", tree.folder / "data", ignore=shutil.ignore_patterns("dataset", "*.jsonl", "build")
    )
    (tree.folder / "tests").mkdir()
    shutil.copy(ROOT / "tests/inference_test_cases.json", tree.folder / "tests")
    write_params(tree.folder, model_size="tiny", data={"rows": ROWS})
    path = tree.folder / "configs/tiny.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings["train"]["examples"] = EXAMPLES
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    for stage in ("generate", "validate", "base"):
        tell(f"$ python -m stages.{stage}")
        subprocess.run(
            [sys.executable, "-m", f"stages.{stage}"], cwd=tree.folder, check=True, capture_output=True, text=True
        )


def act(tree: Tree, *command: str, kill_at: str | None = None) -> int:
    """Run the stage and tell what it says; end it with SIGKILL when it says `kill_at`."""
    tell("$ TRAIN_BACKEND=kaggle python -m stages.train " + " ".join(command))
    process = tree.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in process.stdout:
        tell(f"    {line}")
        if kill_at and kill_at in line:
            process.kill()
            tell("    kill -9: the laptop is closed; the run on Kaggle goes on")
            break
    return process.wait()


def main() -> int:
    """Rehearse; 0 where it ended as it should."""
    owner = alice()
    with (
        tempfile.TemporaryDirectory(prefix="rehearsal-") as name,
        serve(StandInKaggle(Path(name, "kaggle"), accounts=[owner])) as kaggle,
    ):
        tree = Tree(Path(name, "tree"), kaggle, owner, **PATIENT)
        make_inputs(tree)
        act(tree, "submit", "--dry-run")
        act(tree, kill_at="running,")
        act(tree, "status")
        status = act(tree)
        asked = Counter(call.rpc for call in kaggle.record.calls())
        tell("requests: " + ", ".join(f"{rpc} {count}" for rpc, count in asked.most_common()))
        runs, digest = kaggle.runs_started(), tree.adapter()
        tell(f"runs on Kaggle: {runs}; adapter: {digest and digest[:16]}; exit status {status}")
        return 0 if status == 0 and runs == 1 and digest else 1


if __name__ == "__main__":
    sys.exit(main())
