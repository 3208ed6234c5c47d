"""A work tree with all that `stages.train` needs to train on the loopback Kaggle, and how to run it there."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from own_params import write_params
from stand_in_kaggle import Account, StandInKaggle

from stages.common.files import sha256_file

ROOT = Path(__file__).parents[1]

HASTE = {
    "device": "cpu",
    "session_limit_s": 60,
    "margin_s": 2,
    "poll_s": 0.3,
    "log_reconnect_s": 0.5,
    "report_s": 0.1,
    "queued_limit_s": 20,
    "save_s": 1,
    "no_run_grace_s": 2,
    "busy_wait_s": 3,
    "dataset_ready_s": 8,
    "settle_s": 1,
    "unreachable_s": 6,
    "fetch_tries": 3,
    "call_limit_s": 8,
    "transfer_limit_s": 12,
    "backoff_first_s": 0.1,
    "backoff_longest_s": 0.5,
    "estimates": {"tiny": {"examples_per_s": 100, "start_s": 10}},
}
"""Settings in which an hour is a second."""


ROW = '{"messages": [{"content": "s"}, {"content": "gti"}, {"content": "git"}], "meta": {"family": "command"}}\n'


class Tree:
    """A copy of the repository's code with small inputs; `run` runs the stage in it."""

    def __init__(self, folder: Path, kaggle: StandInKaggle, account: Account, **settings: object) -> None:
        self.folder, self.kaggle, self.account = folder, kaggle, account
        self.signed_in = True
        for name in ("stages", "kaggle", "configs"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        write_params(folder, model_size="tiny")
        (folder / "data").mkdir()
        shutil.copy(ROOT / "data/promised.yaml", folder / "data")
        common = yaml.safe_load((ROOT / "stages/training/kaggle.yaml").read_text(encoding="utf-8"))
        self.settings = folder / "haste.yaml"
        self.settings.write_text(yaml.safe_dump({**common, **HASTE, **settings}), encoding="utf-8")

    def use_stand_in_trainer(self, stops: int = 0, hangs: float = 0) -> None:
        """Small inputs, and a trainer that takes a moment."""
        source = (ROOT / "tests/stand_in_trainer.py").read_text(encoding="utf-8")
        source = source.replace("STOPS = 0", f"STOPS = {stops}").replace("HANGS = 0", f"HANGS = {hangs}")
        (self.folder / "kaggle/train_lora.py").write_text(source, encoding="utf-8")
        for name, text in (
            ("models/tiny/base/config.json", "{}"),
            ("models/tiny/base/model.safetensors", "weights"),
            ("data/dataset/train.jsonl", ROW * 4),
            ("data/dataset/valid.jsonl", ROW),
        ):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text, encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        home = self.folder / "home"
        stray = {"VERBOSE": "1", "KAGGLE_TOKEN": "stray"}
        own = {"TRAIN_BACKEND": "kaggle", "TRAIN_SETTINGS": str(self.settings)}
        found = {**self.kaggle.client_environment(self.account, home), **stray, **own}
        return found if self.signed_in else {k: v for k, v in found.items() if k != "KAGGLE_API_TOKEN"}

    def start(self, *command: str, **pipes: object) -> subprocess.Popen[str]:
        """The stage, or one of its commands, as a process."""
        argv = [sys.executable, "-m", "stages.train", *command]
        return subprocess.Popen(argv, cwd=self.folder, env=self.environment, text=True, **pipes)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """The same to its end; both its streams are in `stdout`."""
        process = self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, said)

    def kill_after(self, seconds: float, *command: str) -> bool:
        """Start it, and end it as a power cut would if it is still at work then; returns whether it was."""
        process = self.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        return process.wait() == -signal.SIGKILL

    def adapter(self) -> str | None:
        """The digest of the adapter that the stage has put in place."""
        path = self.folder / "models/tiny/correct/adapter/adapter_model.safetensors"
        return sha256_file(path) if path.is_file() else None

    def attempts(self) -> list[dict[str, Any]]:
        """The sessions that the receipt lists."""
        [receipt] = self.folder.glob(".cache/kaggle/*/receipt.json")
        return json.loads(receipt.read_text(encoding="utf-8"))

    def forget(self) -> None:
        """What is left when the machine is lost: the inputs."""
        shutil.rmtree(self.folder / ".cache", ignore_errors=True)
        shutil.rmtree(self.folder / "models/tiny/correct/adapter", ignore_errors=True)

    def secrets_in(self, *folders: Path) -> list[str]:
        """Every file that holds the account's token or key, or any address's signature."""
        secret = re.compile(f"{self.account.token}|{self.account.key}|KGAT_".encode())
        files = [path for folder in (self.folder, *folders) for path in folder.rglob("*") if path.is_file()]
        return [str(path) for path in files if os.access(path, os.R_OK) and secret.search(path.read_bytes())
                and path.suffix not in (".py", ".pyc")]  # fmt: skip
