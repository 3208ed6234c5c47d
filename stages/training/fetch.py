"""Bring home what a run has left: the log first, then the files, and accept only what was trained from our bytes.

Files go into an empty folder, are held to the run's own digests.json, and the adapter's digests.json to the
bundles that we sent; then the folder is renamed to where it is looked for. COMPLETE alone means nothing.
"""

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from stages.common.files import read_json, sha256_file
from stages.training.bundles import Bundle, CloudRun
from stages.training.client import Kaggle
from stages.training.failures import ArtefactError, CallError
from stages.training.live import log_text
from stages.training.patience import back_off, persist, say
from stages.training.receipt import Attempt
from stages.training.redaction import redact
from stages.training.settings import KaggleSettings

DIGESTS = "digests.json"  # what the notebook writes last
VOUCHER = "checkpoint.json"  # what the trainer writes beside each checkpoint
_NOTHING = f"{DIGESTS} is missing"


def fetch_log(kaggle: Kaggle, owner: str, attempt: Attempt, folder: Path, settings: KaggleSettings) -> str:
    """The log's text, also kept as <slug>.log; empty where Kaggle has none."""
    ref = f"{owner}/{attempt.slug}/{attempt.version}"
    try:
        log = persist(lambda: kaggle.call("log", settings.call_limit_s, ref=ref), "fetching the log", settings)
    except CallError as error:
        say(f"{attempt.slug}: no log: {error}")
        return ""
    text = redact(log_text(log))
    (folder / f"{attempt.slug}.log").write_text(text, encoding="utf-8")
    return text


def fetch_files(
    kaggle: Kaggle, owner: str, attempt: Attempt, folder: Path, settings: KaggleSettings, complete: bool
) -> Path:
    """The run's output in a folder of its own, every file as digests.json of this very run says.

    A run that is not `complete` may have been cut off before it wrote that: then its files are as they came, and
    `checkpoint_in` tells which of them to believe.

    Raises:
        ArtefactError: what came was not whole and unaltered, `fetch_tries` times.
        UnreachableError: it did not come at all; that says nothing about the run, which is not lost by it.
        OSError: there is no room for it.
    """
    ref = f"{owner}/{attempt.slug}/{attempt.version}"
    target = folder / f"{attempt.slug}.partial"

    def bring() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        kaggle.call("output", settings.transfer_limit_s, ref=ref, folder=str(target.resolve()))

    for number in range(1, settings.fetch_tries + 1):
        try:
            persist(bring, "fetching the output", settings, settings.transfer_limit_s)
            problem = verify(target, attempt.slug)
        except CallError as error:
            if error.kind == "disk":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from None
            problem = str(error)
            back_off(error, min(settings.backoff_longest_s, settings.backoff_first_s * 2**number))
        if problem is None:
            return target
        if problem == _NOTHING and not complete:
            if checkpoint_in(target, attempt.slug):
                return target
            if not any(target.glob(f"checkpoints/*/{VOUCHER}")):
                break
            problem = "its checkpoint is not whole"
        say(f"{attempt.slug}: try {number} of {settings.fetch_tries} to fetch the output: {problem}")
    shutil.rmtree(target)
    raise ArtefactError(
        f"{attempt.slug}: the output did not come whole: {problem}; run again, or look at kaggle.com/code/{owner}/"
        f"{attempt.slug}"
    )


def verify(folder: Path, run_id: str) -> str | None:
    """What is wrong with a fetched output, or None."""
    path = folder / DIGESTS
    if not path.is_file():
        return _NOTHING
    try:
        digests = json.loads(path.read_text(encoding="utf-8"))
        if digests["run_id"] != run_id:
            return f"it is the output of {digests['run_id']}"
        files: Mapping[str, str] = digests["files"]
        names = list(files)
    except (ValueError, KeyError, TypeError):
        return f"{DIGESTS} is damaged"
    for name in names:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            return f"{DIGESTS} names {name}, which is no place of the output"
        if not (folder / name).is_file():
            return f"{name} is missing"
        if sha256_file(folder / name) != files[name]:
            return f"{name} is not what the run wrote"
    return None


def check_origin(output: Path, run: CloudRun) -> None:
    """Hold a verified output to what we sent: the base, the rows and the trainer that the adapter names.

    Raises:
        ArtefactError: it was trained from something else, or holds no adapter.
    """
    listed = output / "adapter" / DIGESTS
    if not listed.is_file():
        raise ArtefactError(f"{run.digest}: the run says that it is finished and left no adapter; run again")
    found = read_json(listed)
    sent = run.run.digests
    expected = {
        "base": run.base.digests,
        "dataset": {name: sent[name] for name in ("train.jsonl", "valid.jsonl")},
        "trainer": {name: digest for name, digest in sent.items() if name.endswith(".py")},
    }
    for kind, digests in expected.items():
        if found.get(kind) != digests:
            raise ArtefactError(f"{run.digest}: the adapter was trained from another {kind}; nothing was accepted")


def checkpoint_in(output: Path, run_id: str) -> tuple[Path, float] | None:
    """The folder of the checkpoint that `run_id` has left whole, and the run's progress in it (0 to 1)."""
    for path in sorted((output / "checkpoints").glob(f"*/{VOUCHER}")):
        try:
            voucher = json.loads(path.read_text(encoding="utf-8"))
            mine, digest, progress = voucher["run_id"] == run_id, voucher["sha256"], float(voucher["progress"])
        except (ValueError, KeyError, TypeError):
            continue
        checkpoint = path.with_name("checkpoint.pt")
        if mine and checkpoint.is_file() and sha256_file(checkpoint) == digest:
            return path.parent, progress
    return None


def checkpoint_bundle(folder: Path) -> Bundle:
    """A checkpoint as it goes back to Kaggle."""
    files = {name: folder / name for name in ("checkpoint.pt", VOUCHER)}
    return Bundle("checkpoint", files, f"checkpoints/{folder.name}")
