"""Start a run on Kaggle exactly once.

A kernel's name is the run's digest and the attempt's number, and its source carries that name as the run id. So
what was pushed can always be found again and recognised: after an answer that was lost, after `kill -9`, and on a
machine that has never heard of it. A push whose outcome is unknown is looked for, never repeated on suspicion.
"""

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

from stages.common.files import read_json, write_json
from stages.training.bundles import Bundle, CloudRun
from stages.training.client import Kaggle
from stages.training.failures import (
    BusyError,
    CallError,
    QuotaError,
    RefusedError,
    UnreachableError,
)
from stages.training.patience import back_off, credentials_refused, persist, say
from stages.training.receipt import Attempt, Receipt
from stages.training.settings import KaggleSettings

NOTEBOOK = Path("kaggle/train-lora.ipynb")
METADATA = Path("kaggle/kernel-metadata.json")
SOURCE_LIMIT = 1_000_000  # bytes; Kaggle takes no more

_BUSY = re.compile(r"session count", re.IGNORECASE)
_QUOTA = re.compile(r"weekly.*quota|quota.*reached", re.IGNORECASE)


def notebook_for(attempt: Attempt, inputs: dict[str, Bundle], settings: KaggleSettings) -> dict[str, Any]:
    """The notebook with its parameters: which run it is, what to verify, which GPU to insist on."""
    parameters = {
        "run_id": attempt.slug,
        "gpu": settings.gpu,
        "gpus": settings.gpus,
        "device": settings.device,
        "session_s": attempt.timeout_s,
        "margin_s": settings.margin_s,
        "report_s": settings.report_s,
        "inputs": {kind: bundle.digest for kind, bundle in inputs.items()},
    }
    notebook = read_json(NOTEBOOK)
    [cell] = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    cell["source"] = f"RUN = {parameters!r}"
    return notebook


def metadata_for(slug: str, owner: str, datasets: list[str], settings: KaggleSettings) -> dict[str, Any]:
    """kernel-metadata.json of one push. The title is the slug: Kaggle derives the slug from it."""
    filled = {
        "id": f"{owner}/{slug}",
        "title": slug,
        "machine_shape": settings.machine_shape,
        "dataset_sources": datasets,
    }
    return {**read_json(METADATA), **filled}


def check_source(slug: str, notebook: dict[str, Any]) -> None:
    """What Kaggle would refuse or mistake, before anything is spent.

    Raises:
        RefusedError: the slug is no slug of itself, or the source is too large or names no kernel.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) or not 5 <= len(slug) <= 50:
        raise RefusedError(
            f"{slug}: no name for a Kaggle kernel; rename configs/<size>.yaml with fewer characters"
        )
    size = len(json.dumps(notebook).encode())
    if size >= SOURCE_LIMIT:
        raise RefusedError(f"{NOTEBOOK}: {size} bytes; Kaggle takes less than {SOURCE_LIMIT}")
    if not notebook["metadata"].get("kernelspec", {}).get("name"):
        raise RefusedError(f"{NOTEBOOK}: metadata.kernelspec.name is missing; without it the run cannot start")


def find(kaggle: Kaggle, owner: str, slug: str, settings: KaggleSettings) -> int:
    """The version of a kernel that carries our run id; 0 where the kernel does not exist.

    Raises:
        RefusedError: the kernel is there, but no version of it is ours.
    """
    newest = _kernel(kaggle, f"{owner}/{slug}", settings)
    if newest is None:
        return 0
    if _run_id(newest["source"]) == slug:
        return newest["version"] or 1
    for version in range(newest["version"] - 1, 0, -1):
        older = _kernel(kaggle, f"{owner}/{slug}/{version}", settings)
        if older and _run_id(older["source"]) == slug:
            say(f"{slug}: version {newest['version']} is somebody else's; ours is {version}")
            return version
    raise RefusedError(f"kernel {owner}/{slug} exists and is not ours; delete it at kaggle.com and run again")


def push(
    kaggle: Kaggle,
    run: CloudRun,
    receipt: Receipt,
    owner: str,
    inputs: dict[str, Bundle],
    refs: list[str],
    settings: KaggleSettings,
) -> Attempt:
    """Push the attempt that the receipt notes as `pushing`; returns it with its version, noted as `pushed`.

    Raises:
        BusyError, QuotaError: nothing was started.
        RefusedError: nothing was started, or what was started stops by itself for want of its data.
        UnreachableError: Kaggle does not answer. What may have been started is noted, and the next call finds out.
    """
    attempt = receipt.last
    answer: dict[str, Any] = {}
    folder = run.folder / "push"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(folder / NOTEBOOK.name, notebook_for(attempt, inputs, settings))
    write_json(folder / METADATA.name, metadata_for(attempt.slug, owner, refs, settings))
    deadline = time.monotonic() + settings.busy_wait_s
    while True:
        receipt.update(asked_at=time.time())
        try:
            answer = kaggle.call(
                "push", settings.call_limit_s, folder=str(folder.resolve()), timeout_s=attempt.timeout_s
            )
            version = judge(answer, owner, attempt.slug)
            return receipt.update(phase="pushed", version=version)
        except BusyError as error:
            if time.monotonic() > deadline:
                receipt.drop_last()
                raise
            say(f"{error}; again in {settings.poll_s:.0f} s")
            time.sleep(settings.poll_s)
        except (QuotaError, RefusedError) as error:
            if answer["version"]:  # something runs, but not what we want
                receipt.update(phase="failed", version=answer["version"], failure=str(error))
            else:
                receipt.drop_last()
            raise
        except CallError as error:
            if error.may_have_acted or error.status == 409:  # a conflict may be with ourselves
                say(f"the push met: {error}; looking whether it arrived")
                attempt = receipt.update(asked_at=time.time())  # it was on its way until now
                if found := settle(kaggle, receipt, owner, settings):
                    return found
            if not error.is_transient:
                receipt.drop_last()
                raise (
                    credentials_refused(error) if error.status == 401 else RefusedError(f"push: {error}")
                ) from None
            if time.monotonic() > deadline:
                receipt.drop_last()
                raise UnreachableError(f"push: {error}; run again later") from None
            say(f"nothing was started: {error}; trying again")
            back_off(error, settings.backoff_longest_s)


def settle(kaggle: Kaggle, receipt: Receipt, owner: str, settings: KaggleSettings) -> Attempt | None:
    """What became of a push without an answer: the attempt as `pushed`, or None where it has not arrived.

    A request may still be on its way when its sender is gone, so absence is believed only after `settle_s`.
    """
    attempt = receipt.last
    while True:
        if version := find(kaggle, owner, attempt.slug, settings):
            say(f"{attempt.slug}: the push had arrived as version {version}")
            return receipt.update(phase="pushed", version=version)
        if time.time() - attempt.asked_at > settings.settle_s:
            return None
        time.sleep(min(settings.poll_s, settings.settle_s / 4))


def judge(answer: dict[str, Any], owner: str, slug: str) -> int:
    """The version that a push has started, from what Kaggle answered: success is stated, not a lack of errors.

    Raises:
        BusyError, QuotaError, RefusedError: what Kaggle said instead.
    """
    problem = str(answer["error"] or "")
    if _BUSY.search(problem):
        raise BusyError(f"no free GPU session: Kaggle says: {problem}")
    if _QUOTA.search(problem):
        raise QuotaError(f"Kaggle says: {problem} Run again after the reset (Saturday 00:00 UTC)")
    if problem:
        raise RefusedError(f"push: Kaggle says: {problem}")
    if answer["invalid"]:
        missing = ", ".join(f"{kind} {name}" for kind, names in answer["invalid"].items() for name in names)
        raise RefusedError(
            f"push: Kaggle does not find {missing} and has started the run without; it will stop by itself: "
            f"kaggle.com/code/{owner}/{slug}"
        )
    if answer["version"] < 1:
        raise RefusedError("push: Kaggle names no version, so nothing runs; run again")
    if slug not in (answer["ref"] or answer["url"]).split("/"):
        raise RefusedError(f"push: Kaggle answered for {answer['ref']}, not for {owner}/{slug}")
    return answer["version"]


def _kernel(kaggle: Kaggle, ref: str, settings: KaggleSettings) -> dict[str, Any] | None:
    try:
        return persist(
            lambda: kaggle.call("kernel", settings.call_limit_s, ref=ref), "asking for the kernel", settings
        )
    except CallError as error:
        if error.is_missing_or_closed:
            return None
        raise RefusedError(f"kernel {ref}: {error}") from None


def _run_id(source: str) -> str | None:
    """The run id in a notebook's parameters."""
    found = re.search(r"'run_id': '([a-z0-9-]+)'", source)
    return found and found[1]
