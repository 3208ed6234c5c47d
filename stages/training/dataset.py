"""One private dataset for each bundle: created once, waited for, checked."""

import shutil
import time

from stages.common import paths
from stages.common.files import read_json, write_json
from stages.training.bundles import Bundle
from stages.training.client import Kaggle
from stages.training.failures import CallError, RefusedError, UnreachableError
from stages.training.patience import back_off, credentials_refused, persist, say
from stages.training.settings import KaggleSettings

_EXPECTED = paths.CACHE / "kaggle" / "datasets"


def ensure_dataset(kaggle: Kaggle, owner: str, bundle: Bundle, settings: KaggleSettings) -> str:
    """Return the ref of the bundle's dataset, ready and checked; create it if it is not there.

    Raises:
        RefusedError: Kaggle will not take it, or it is not what it must be.
        UnreachableError: it did not become ready in `dataset_ready_s`.
    """
    ref = f"{owner}/{bundle.slug}"
    deadline = time.monotonic() + settings.dataset_ready_s
    listed_by: float | None = None
    shown = ""
    while time.monotonic() < deadline:
        state = _look(kaggle, ref, settings)
        if state["status"] == "ready":
            missing = _check(bundle, ref, state)
            if missing is None:
                return ref
            listed_by = listed_by or time.monotonic() + settings.settle_s  # a list may be behind the status
            if time.monotonic() > listed_by:
                raise RefusedError(
                    f"dataset {ref} lacks {missing} in its right size; delete the dataset there and run again"
                )
            state = {"status": f"ready, but without {missing} yet"}
        if state["status"] in ("failed", "deleted"):
            raise RefusedError(
                f"dataset {ref} is {state['status']}; delete it at kaggle.com/datasets/{ref} and run again"
            )
        if state["status"] == "absent":
            _create(kaggle, owner, bundle, settings)
            deadline = time.monotonic() + settings.dataset_ready_s  # gigabytes may have taken hours to go up
            continue
        if state["status"] != shown:
            shown = state["status"]
            say(f"dataset {bundle.slug}: {shown.replace('_', ' ')}")
        time.sleep(min(settings.poll_s, 30.0))
    raise UnreachableError(
        f"dataset {ref} was not ready after {settings.dataset_ready_s / 60:.0f} min; run again to go on waiting"
    )


def _look(kaggle: Kaggle, ref: str, settings: KaggleSettings) -> dict:
    """The dataset's state: Kaggle's, or "absent", or "pending" while Kaggle hides it from its own owner.

    A dataset that is being created answers 403 like one that does not exist; so absence is asked of the list of
    our own, which does not know it either at first, and not believed for a while after we asked for it.
    """
    try:
        return persist(
            lambda: kaggle.call("dataset", settings.call_limit_s, ref=ref), "asking for a dataset", settings
        )
    except CallError as error:
        if not error.is_missing_or_closed:
            raise RefusedError(f"dataset {ref}: {error}") from None
    slug = ref.split("/")[1]
    expected = _EXPECTED / f"{slug}.json"
    if expected.is_file() and time.time() < read_json(expected)["until"]:
        return {"status": "pending"}
    try:
        own = persist(
            lambda: kaggle.call("own_datasets", settings.call_limit_s, search=slug), "listing datasets", settings
        )
    except CallError as error:
        raise RefusedError(f"listing datasets: {error}") from None
    return {"status": "pending" if ref in own else "absent"}


def _create(kaggle: Kaggle, owner: str, bundle: Bundle, settings: KaggleSettings) -> None:
    """Upload and create. An answer that was lost, or "already in use", is settled by the next look."""
    megabytes = sum(bundle.sizes.values()) / 1e6
    say(f"uploading {megabytes:.1f} MB as private dataset {bundle.slug}")
    folder = paths.CACHE / "kaggle" / "upload" / bundle.slug
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    bundle.lay_out(folder, owner)
    try:
        answer = kaggle.call("create_dataset", settings.transfer_limit_s, folder=str(folder.resolve()))
    except CallError as error:
        if error.status == 401:
            raise credentials_refused(error) from None
        if not error.is_transient and error.kind != "client":
            raise RefusedError(f"dataset {bundle.slug}: {error}") from None
        if error.may_have_acted:
            _expect(bundle, settings.settle_s)
        say(f"the upload of {bundle.slug} met: {error}; looking whether it arrived")
        back_off(error, settings.backoff_first_s)
        return
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    problem = str(answer["error"] or "")
    if (problem or str(answer["status"]).lower() != "ok") and "already in use" not in problem:
        raise RefusedError(f"dataset {bundle.slug}: Kaggle says: {problem or answer['status']}")
    _expect(bundle, settings.dataset_ready_s)


def _expect(bundle: Bundle, seconds: float) -> None:
    """Remember that it was asked for: until then its absence proves nothing."""
    write_json(_EXPECTED / f"{bundle.slug}.json", {"until": time.time() + seconds})


def _check(bundle: Bundle, ref: str, state: dict) -> str | None:
    """A file that a ready dataset does not list in its right size, or None. The notebook verifies the bytes; here,
    what would waste a session: a partial or foreign dataset.

    Raises:
        RefusedError: it is public.
    """
    if not state["private"]:
        raise RefusedError(f"dataset {ref} is public; make it private at kaggle.com/datasets/{ref}/settings")
    return next((name for name, size in bundle.sizes.items() if state["files"].get(name) != size), None)
