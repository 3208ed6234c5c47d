"""The Kaggle on loopback, asked by the unpatched client: what it speaks, how it behaves, each of its faults."""

import importlib.metadata
import importlib.util
import itertools
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from stand_in_kaggle import (
    FAULTS,
    Account,
    Client,
    Delays,
    Limits,
    Refused,
    StandInKaggle,
    alice,
    client,
    fault,
    listen,
    serve,
)
from stand_in_kaggle.effects import Alter, HangBefore, NoRun
from stand_in_kaggle.faults import PLACES
from stand_in_kaggle.messages import RPCS
from stand_in_kaggle.sandbox import Sandbox
from stand_in_kaggle.server import Address

NEVER_RUN = Delays(queue_s=600)  # a push is queued, and no notebook is started


@dataclass
class World:
    """A served stand-in, an account on it, and a client in a folder of its own."""

    kaggle: StandInKaggle
    account: Account
    folder: Path
    api: Client

    def dataset(self, slug: str, **files: str) -> Path:
        """A folder to be uploaded as alice/`slug`."""
        folder = self.folder / slug
        folder.mkdir(exist_ok=True)
        settings = {"id": f"alice/{slug}", "title": slug, "licenses": [{"name": "CC0-1.0"}]}
        (folder / "dataset-metadata.json").write_text(json.dumps(settings))
        for name, content in files.items():
            (folder / name.replace("_", ".")).write_text(content)
        return folder

    def create(self, slug: str, **files: str) -> None:
        """Upload a dataset and wait until it is ready."""
        assert self.api("dataset_create_new", str(self.dataset(slug, **files)), quiet=True)["status"] == "ok"
        await_that(lambda: self.status_or_refusal(slug) == "ready")

    def status_or_refusal(self, slug: str) -> str:
        try:
            return self.api("dataset_status", f"alice/{slug}")
        except Refused as refusal:
            return str(refusal.status)

    def push(self, slug: str, *lines: str, timeout: int = 60, **settings: Any) -> dict:
        """Push a notebook with one cell of these lines."""
        return self.api("kernels_push", str(self.kernel(slug, *lines, **settings)), timeout=str(timeout))

    def kernel(self, slug: str, *lines: str, **settings: Any) -> Path:
        """A folder to be pushed as alice/`slug`."""
        folder = self.folder / f"kernel-{slug}"
        folder.mkdir(exist_ok=True)
        cell = {"cell_type": "code", "id": "only", "metadata": {}, "outputs": [], "execution_count": None}
        notebook = {
            "cells": [{**cell, "source": "\n".join(lines)}],
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (folder / "notebook.ipynb").write_text(json.dumps(notebook))
        described = {
            "id": f"alice/{slug}",
            "title": slug,
            "code_file": "notebook.ipynb",
            "language": "python",
            "kernel_type": "notebook",
            "machine_shape": "NvidiaTeslaT4",
            **settings,
        }
        (folder / "kernel-metadata.json").write_text(json.dumps(described))
        return folder

    def run(self, slug: str, *lines: str, **settings: Any) -> dict:
        """Push, wait for the end, and return the status."""
        version = self.push(slug, *lines, **settings)["versionNumber"]
        assert self.kaggle.kernels.find(f"alice/{slug}").versions[version - 1].session.wait(30)
        return self.api("kernels_status", f"alice/{slug}/{version}")

    def output(self, ref: str) -> dict[str, str]:
        """Download a run's outputs and log into an empty folder; the contents by name."""
        folder = self.folder / f"output-{time.monotonic_ns()}"
        self.api("kernels_output", ref, str(folder), force=True)
        paths = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


@contextmanager
def world_at(folder: Path, **options: Any) -> Iterator[World]:
    """Serve a stand-in in `folder` and start a client for it."""
    account = alice()
    served = StandInKaggle(folder / "stand-in", accounts=[account], **options)
    with serve(served), client(served.client_environment(account, folder / "home"), folder) as api:
        yield World(served, account, folder, api)


@dataclass(frozen=True)
class Seat:
    """Where the module's client is: it starts once, and finds a new stand-in for each test."""

    address: Address
    account: Account
    api: Client


@pytest.fixture(scope="module")
def seat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seat]:
    """A client that has found its token accepted."""
    account, folder = alice(), tmp_path_factory.mktemp("client")
    first = StandInKaggle(folder / "stand-in", accounts=[account])
    with ExitStack() as stack:
        address = stack.enter_context(listen())
        with address.serve(first):
            api = stack.enter_context(client(first.client_environment(account, folder / "home"), folder))
            api("quota_view")
        yield Seat(address, account, api)


@pytest.fixture
def world(seat: Seat, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """A stand-in of the test's own; `@pytest.mark.parametrize("world", [options], indirect=True)` sets it."""
    account = replace(seat.account, gpu_hours_used=0.0, has_ever_run=False)
    options = getattr(request, "param", {})
    with seat.address.serve(StandInKaggle(tmp_path / "stand-in", accounts=[account], **options)) as served:
        yield World(served, account, tmp_path, seat.api)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A stand-in with a dataset and a kernel whose only run has succeeded; no test leaves a fault in force."""
    with world_at(tmp_path_factory.mktemp("finished")) as made:
        made.create("the-data", a_jsonl="row\n")
        lines = ["print('trained')", "_ = open('adapter.bin', 'w').write('weights' * 1000)"]
        assert made.run("the-run", *lines)["status"] == "COMPLETE"
        yield made


def await_that(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Ask until it is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def never_run(**options: Any) -> pytest.MarkDecorator:
    """The test's stand-in keeps pushes in the queue."""
    return pytest.mark.parametrize("world", [{"delays": NEVER_RUN, **options}], indirect=True, ids=["queued"])


# --- the client and its account
def test_the_installed_client_is_used_and_not_the_folder(root: Path) -> None:
    # not imported here: at import the client takes the developer's own token and asks the real Kaggle about it
    spec = importlib.util.find_spec("kaggle")
    assert Path(spec.origin).parent != root / "kaggle"
    assert importlib.metadata.version("kaggle") == "2.2.5"


def test_the_token_is_checked_and_is_not_in_the_record(tmp_path: Path) -> None:
    with world_at(tmp_path) as world:
        world.api("kernels_list", mine=True)
        introspection, listing = world.kaggle.record.calls()
        assert (introspection.rpc, listing.rpc, listing.way) == ("IntrospectToken", "ListKernels", "bearer")
        assert (listing.account, listing.status) == ("alice", 200)
        assert world.account.token not in repr(world.kaggle.record.calls())
        assert world.account.token not in repr(world.account)


def test_a_call_to_production_is_caught(tmp_path: Path) -> None:
    def ask() -> None:
        with serve(StandInKaggle(tmp_path / "stand-in", accounts=[account])) as served:
            environment = served.client_environment(account, tmp_path / "home")
            environment["KAGGLE_API_ENVIRONMENT"] = "TEST"  # means production to the client
            with client(environment, tmp_path) as api, pytest.raises(Refused):
                api("quota_view")

    account = alice()
    with pytest.raises(AssertionError, match=r"called api\.kaggle\.com:443"):
        ask()


def test_a_legacy_key_works_but_cannot_cancel(tmp_path: Path) -> None:
    account = alice()
    with serve(StandInKaggle(tmp_path / "stand-in", accounts=[account])) as served:
        environment = served.client_environment(account, tmp_path / "home")
        del environment["KAGGLE_API_TOKEN"]
        with client({**environment, "KAGGLE_USERNAME": "alice", "KAGGLE_KEY": account.key}, tmp_path) as api:
            assert "gpuQuota" in api("quota_view")
            with pytest.raises(Refused) as refusal:
                api("cancel", 1)
        assert refusal.value.status == 401
        assert {call.way for call in served.record.calls()} == {"basic"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("introspection refused", "Unauthenticated"),
        ("introspection breaks", "500 Server Error"),
        ("token inactive", "Authentication required"),
    ],
)
def test_the_command_line_gives_up_when_the_token_is_not_confirmed(tmp_path: Path, name: str, says: str) -> None:
    account, faults = alice(), [fault(name, times=None)]
    with serve(StandInKaggle(tmp_path / "stand-in", accounts=[account], faults=faults)) as served:
        program = Path(sys.executable).parent / "kaggle"
        environment = served.client_environment(account, tmp_path / "home")
        run = subprocess.run(
            [program, "quota"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert run.returncode == 1
        assert says in run.stdout + run.stderr
        assert {call.rpc for call in served.record.calls()} == {"IntrospectToken"}


# --- the faults
def test_a_fault_strikes_somewhere_that_there_is() -> None:
    assert len(FAULTS) >= 25
    assert {entry.place for entry in FAULTS.values()} <= PLACES | set(RPCS)


def test_a_fault_can_be_aimed_elsewhere_and_made_more_frequent(finished: World) -> None:
    finished.kaggle.faults.add(fault("push breaks", place="GetAcceleratorQuotaStatistics", times=2))
    for _ in range(2):
        with pytest.raises(Refused, match="500 Server Error"):
            finished.api("quota_view")
    assert finished.api("quota_view")["gpuQuota"]


# --- datasets
SLOW = {"delays": Delays(dataset_denied_s=0.8, dataset_processing_s=1.2, queue_s=600)}


PROCESSED = ["403", "not_yet_persisted", "blobs_received", "blobs_decompressed", "blobs_copied_to_sds",
             "individual_blobs_compressed", "ready"]  # fmt: skip
SLOWER = {"delays": Delays(dataset_denied_s=0.8, dataset_processing_s=4, queue_s=600)}


@pytest.mark.parametrize("world", [SLOWER], indirect=True, ids=["slow"])
def test_a_new_dataset_is_denied_to_its_owner_then_goes_through_its_states(world: World) -> None:
    assert world.status_or_refusal("the-data") == "403"  # as for one that is not there
    world.api("dataset_create_new", str(world.dataset("the-data", a_jsonl="row\n")), quiet=True)
    assert world.api("dataset_list", mine=True) == []
    seen = []
    await_that(lambda: seen.append(world.status_or_refusal("the-data")) or seen[-1] == "ready")
    states = [state for state, _ in itertools.groupby(seen)]
    assert (states[0], states[-1]) == ("403", "ready")
    assert [PROCESSED.index(state) for state in states] == sorted(map(PROCESSED.index, states))
    assert len(states) > 2  # a busy machine asks too seldom to see them all
    [listed] = world.api("dataset_list", mine=True)
    assert (listed["ref"], listed["isPrivate"], listed["currentVersionNumber"]) == ("alice/the-data", True, 1)


@never_run()
def test_a_datasets_files_are_listed_in_pages_of_twenty(world: World) -> None:
    world.create("many-files", **{f"f{n:02}": "x" * n for n in range(25)})
    first = world.api("dataset_list_files", "alice/many-files")
    second = world.api("dataset_list_files", "alice/many-files", page_token=first["nextPageToken"])
    listed = {file["name"]: file["totalBytes"] for page in (first, second) for file in page["datasetFiles"]}
    assert len(first["datasetFiles"]) == 20
    assert listed == {f"f{n:02}": n for n in range(25)}
    assert second["nextPageToken"] is None


@pytest.mark.parametrize("world", [SLOW], indirect=True, ids=["slow"])
def test_a_push_while_a_version_is_processed_gets_the_version_before(world: World) -> None:
    world.create("the-data", a_jsonl="old\n")
    folder = str(world.dataset("the-data", a_jsonl="new\n"))
    assert world.api("dataset_create_version", folder, "new rows", quiet=True)["status"] == "ok"
    assert world.status_or_refusal("the-data") == "ready"  # that of the old one
    assert world.push("pinned-run", dataset_sources=["alice/the-data/2"])["invalidDatasetSources"] == [
        "alice/the-data/2"
    ]
    assert world.push("stale-run", dataset_sources=["alice/the-data"])["invalidDatasetSources"] == []
    mounted = world.kaggle.kernels.find("alice/stale-run").latest.session.job.mounts[0]
    mounted.lay_out(world.folder / "laid-out")
    assert (world.folder / "laid-out/a.jsonl").read_text() == "old\n"


@never_run()
def test_a_private_dataset_is_nobody_elses(world: World, tmp_path: Path) -> None:
    world.create("the-data", a_jsonl="row\n")
    bob = Account("bob", token="KGAT_bob")
    world.kaggle.accounts.add(bob)
    with client(world.kaggle.client_environment(bob, tmp_path / "bob"), tmp_path / "bob") as api:
        with pytest.raises(Refused) as refusal:
            api("dataset_status", "alice/the-data")
        assert refusal.value.status == 403
        pushed = world.kernel("the-run", id="bob/the-run", dataset_sources=["alice/the-data"])
        assert api("kernels_push", str(pushed))["invalidDatasetSources"] == ["alice/the-data"]
        world.push("own-run")
        with pytest.raises(Refused, match="Cannot access kernel"):
            api("kernels_status", "alice/own-run")


@never_run()
def test_an_interrupted_upload_is_resumed(world: World) -> None:
    world.kaggle.faults.add(fault("upload interrupted", times=2))
    content = "".join(f"row {n}\n" for n in range(5000))
    world.create("the-data", a_jsonl=content)
    assert [call.status for call in world.kaggle.record.calls("upload")] == [503, 503, 200]
    assert [call.status for call in world.kaggle.record.calls("upload query")] == [308, 308]
    [dataset] = world.kaggle.datasets.all()
    assert dataset.versions[0].files[0].path.read_text() == content


@never_run()
def test_an_expired_upload_is_begun_anew(world: World) -> None:
    world.kaggle.faults.add(fault("upload interrupted"), fault("upload expired"))
    world.create("the-data", a_jsonl="row\n")
    assert [call.status for call in world.kaggle.record.calls("upload")] == [503, 200]
    assert [call.status for call in world.kaggle.record.calls("upload query")] == [404]
    assert len(world.kaggle.record.calls("StartBlobUpload")) == 2


@never_run()
def test_a_refused_upload_makes_no_dataset(world: World) -> None:
    world.kaggle.faults.add(fault("upload refused"))
    with pytest.raises(Refused, match="Upload unsuccessful"):
        world.api("dataset_create_new", str(world.dataset("the-data", a_jsonl="row\n")), quiet=True)
    assert world.kaggle.datasets.all() == []


@never_run()
def test_a_dropped_upload_is_sent_again(world: World) -> None:
    world.kaggle.faults.add(fault("upload dropped"))
    world.create("the-data", a_jsonl="row\n")
    assert [call.status for call in world.kaggle.record.calls("upload")] == [None, 200]


@never_run()
@pytest.mark.parametrize("name", ["dataset creation dropped before", "dataset creation too many requests"])
def test_a_creation_that_did_not_happen_is_repeated_by_the_client(world: World, name: str) -> None:
    world.kaggle.faults.add(fault(name))
    world.create("the-data", a_jsonl="row\n")
    assert len(world.kaggle.record.calls("CreateDataset")) == 2


@never_run()
def test_a_creation_can_fail_with_an_answer_of_success(world: World) -> None:
    world.kaggle.faults.add(fault("dataset creation error in body"))
    answer = world.api("dataset_create_new", str(world.dataset("the-data", a_jsonl="row\n")), quiet=True)
    assert (answer["status"], answer["error"]) == ("error", "The dataset could not be created.")
    assert world.kaggle.datasets.all() == []


@never_run()
def test_a_hanging_creation_has_happened(world: World) -> None:
    world.kaggle.faults.add(fault("dataset creation hangs after"))
    world.api.begin("dataset_create_new", str(world.dataset("the-data", a_jsonl="row\n")), quiet=True)
    await_that(lambda: len(world.kaggle.datasets.all()) == 1)
    world.kaggle.faults.lift("dataset creation hangs after")
    assert "already in use" in world.api.result()["error"]  # the client had repeated it


@never_run()
def test_a_deleted_dataset_is_gone(world: World) -> None:
    world.create("the-data", a_jsonl="row\n")
    assert world.api("dataset_delete", "alice", "the-data", no_confirm=True)
    assert world.status_or_refusal("the-data") == "403"


@never_run()
def test_a_creation_without_an_answer_is_repeated_by_the_client_and_makes_one_dataset(world: World) -> None:
    world.kaggle.faults.add(fault("dataset creation dropped after"))
    answer = world.api("dataset_create_new", str(world.dataset("the-data", a_jsonl="row\n")), quiet=True)
    assert (answer["status"], "already in use" in answer["error"]) == ("error", True)
    assert [call.status for call in world.kaggle.record.calls("CreateDataset")] == [None, 200]
    assert len(world.kaggle.datasets.all()) == 1


@never_run()
def test_a_version_without_an_answer_is_repeated_by_the_client_and_made_twice(world: World) -> None:
    world.create("the-data", a_jsonl="row\n")
    world.kaggle.faults.add(fault("dataset version dropped after"))
    world.api("dataset_create_version", str(world.folder / "the-data"), "again", quiet=True)
    [dataset] = world.kaggle.datasets.all()
    assert [version.number for version in dataset.versions] == [1, 2, 3]


@never_run()
@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("dataset denied for good", "403"),
        ("dataset never ready", "blobs_received"),
        ("dataset failed", "failed"),
    ],
)
def test_a_dataset_can_stay_unusable(world: World, name: str, status: str) -> None:
    world.kaggle.faults.add(fault(name))
    world.api("dataset_create_new", str(world.dataset("the-data", a_jsonl="row\n")), quiet=True)
    await_that(lambda: world.status_or_refusal("the-data") == status)
    refused = world.push("the-run", dataset_sources=["alice/the-data"])["invalidDatasetSources"]
    assert refused == ["alice/the-data"]


# --- pushes
@never_run()
def test_what_is_not_valid_is_listed_and_the_run_starts_without_it(world: World) -> None:
    answer = world.push(
        "the-run",
        dataset_sources=["alice/not-there"],
        kernel_sources=["alice/not-there"],
        competition_sources=["titanic"],
        model_sources=["google/gemma/transformers/2b/1"],
        keywords=["nlp", "no such tag"],
    )
    assert answer["invalidDatasetSources"] == answer["invalidKernelSources"] == ["alice/not-there"]
    assert answer["invalidCompetitionSources"] == ["titanic"]
    assert answer["invalidModelSources"] == ["google/gemma/transformers/2b/1"]
    assert answer["invalidTags"] == ["no such tag"]
    assert (answer["error"], answer["versionNumber"], answer["ref"]) == (None, 1, "/code/alice/the-run")


@never_run()
def test_the_third_gpu_session_is_refused_and_nothing_is_saved(world: World) -> None:
    for slug in ("first-run", "second-run"):
        assert world.push(slug)["error"] is None
    answer = world.push("third-run")
    assert answer["error"] == "Maximum batch GPU session count of 2 reached."
    assert (answer["versionNumber"], world.kaggle.kernels.find("alice/third-run")) == (None, None)
    assert world.push("on-a-cpu", machine_shape="")["versionNumber"] == 1
    world.api("kernels_delete", "alice/first-run", no_confirm=True)  # what waits is dropped
    await_that(lambda: world.push("third-run")["versionNumber"] == 1)


@never_run()
def test_a_used_up_quota_refuses_gpus_and_shows(world: World) -> None:
    world.push("the-run", timeout=3600)
    world.account.gpu_hours_used = 30.5
    quota = world.kaggle.kernels.quota(world.account)
    assert (quota["gpuQuota"]["timeUsed"], quota["gpuQuota"]["timeReserved"]) == ("109800s", "3600s")
    assert world.push("next-run")["error"] == "Maximum weekly GPU quota of 30.00 hours reached."


@never_run()
def test_a_quota_that_was_never_used_has_no_time_used(world: World) -> None:
    quota = world.api("quota_view")["gpuQuota"]
    assert (quota["timeUsed"], quota["timeReserved"], quota["hasEverRun"]) == (None, None, False)


@never_run()
def test_the_title_makes_the_slug_and_the_owner_must_be_the_caller(world: World) -> None:
    assert world.push("asked-for", title="Another name")["ref"] == "/code/alice/another-name"
    with pytest.raises(Refused, match="Cannot access kernel"):
        world.api("kernels_status", "alice/asked-for")
    assert world.push("the-run", id="bob/the-run")["error"] == "Notebook not found"


@never_run()
def test_a_source_over_a_megabyte_is_refused(world: World) -> None:
    assert "1 MB" in world.push("the-run", "#" * 1_000_001)["error"]


@never_run()
def test_a_retired_gpu_is_accepted_and_an_unknown_one_becomes_any(world: World) -> None:
    for slug, shape, saved in (
        ("on-a-p100", "NvidiaTeslaP100", "NvidiaTeslaP100"),
        ("on-an-x999", "NvidiaX999", "Gpu"),
    ):
        assert world.push(slug, machine_shape=shape)["error"] is None
        folder = world.api("kernels_pull", f"alice/{slug}", str(world.folder / slug), metadata=True)
        assert json.loads(Path(folder, "kernel-metadata.json").read_text())["machine_shape"] == saved
        assert world.kaggle.kernels.find(f"alice/{slug}").latest.session.job.gpus == ("Tesla T4", "Tesla T4")


@never_run()
def test_a_pushed_source_can_be_pulled(world: World) -> None:
    world.push("the-run", "print('run id 17')")
    path = world.api("kernels_pull", "alice/the-run", str(world.folder / "pulled"))
    assert "run id 17" in Path(path).read_text()


@never_run()
def test_a_quick_save_runs_nothing(world: World) -> None:
    world.api("kernels_push", str(world.kernel("the-run")), no_run=True)
    assert world.kaggle.kernels.sessions == []
    with pytest.raises(Refused) as refusal:
        world.api("kernels_status", "alice/the-run")
    assert refusal.value.status == 404


@never_run()
@pytest.mark.parametrize(("name", "versions"), [("push dropped before", 0), ("push dropped after", 1)])
def test_a_dropped_push_has_happened_or_not(world: World, name: str, versions: int) -> None:
    world.kaggle.faults.add(fault(name))
    with pytest.raises(Refused) as refusal:
        world.push("the-run")
    assert "ConnectionError" in refusal.value.kinds
    assert len(world.kaggle.kernels.sessions) == versions


@never_run()
@pytest.mark.parametrize(("name", "versions"), [("push hangs before", 0), ("push hangs after", 1)])
def test_a_hanging_push_comes_back_when_the_fault_is_lifted(world: World, name: str, versions: int) -> None:
    world.kaggle.faults.add(fault(name))
    world.api.begin("kernels_push", str(world.kernel("the-run")))
    await_that(lambda: len(world.kaggle.kernels.sessions) == versions and world.kaggle.faults.hits[name] == 1)
    assert world.kaggle.record.calls("SaveKernel") == []  # it is not over
    world.kaggle.faults.lift(name)
    with pytest.raises(Refused) as refusal:
        world.api.result()
    assert "ConnectionError" in refusal.value.kinds
    assert len(world.kaggle.kernels.sessions) == versions


@never_run()
@pytest.mark.parametrize(
    ("name", "status", "versions"),
    [
        ("push breaks", 500, 0),
        ("push times out after", 504, 1),
        ("push too many requests", 429, 0),
        ("push conflict", 409, 0),
        ("push error code on 200", 200, 0),
    ],
)
def test_a_push_can_fail_with_a_status(world: World, name: str, status: int, versions: int) -> None:
    world.kaggle.faults.add(fault(name))
    with pytest.raises(Refused) as refusal:
        world.push("the-run")
    assert ("HTTPError" in refusal.value.kinds, refusal.value.status) == (True, status)
    assert len(world.kaggle.kernels.sessions) == versions


@never_run()
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("push error in body", "Kernel push failed. Please try again."),
        ("session count reached", "Maximum batch GPU session count of 2 reached."),
        ("quota reached", "Maximum weekly GPU quota of 30.00 hours reached."),
        ("push without version", None),
    ],
)
def test_a_push_can_fail_with_an_answer_of_success(world: World, name: str, error: str | None) -> None:
    world.kaggle.faults.add(fault(name))
    answer = world.push("the-run")
    assert (answer["error"], answer["versionNumber"]) == (error, None)
    assert world.kaggle.kernels.sessions == []


@never_run()
def test_a_dataset_can_be_called_invalid_or_be_stale(world: World) -> None:
    world.create("the-data", a_jsonl="old\n")
    world.api("dataset_create_version", str(world.dataset("the-data", a_jsonl="new\n")), "new rows", quiet=True)
    [dataset] = world.kaggle.datasets.all()
    await_that(lambda: world.kaggle.datasets.bind(world.account, "alice/the-data")[1].number == 2)
    world.kaggle.faults.add(fault("dataset source invalid"), fault("dataset version stale"))
    answer = world.push("the-run", dataset_sources=["alice/the-data"])
    assert answer["invalidDatasetSources"] == ["alice/the-data"]
    assert world.kaggle.datasets.bind(world.account, "alice/the-data") == (dataset, dataset.versions[0])


@never_run()
def test_somebody_else_can_push_a_version_of_the_same_kernel(world: World) -> None:
    world.kaggle.faults.add(fault("another version pushed"))
    assert world.push("the-run", "print('ours')")["versionNumber"] == 1
    path = world.api("kernels_pull", "alice/the-run", str(world.folder / "latest"))
    assert "another version" in Path(path).read_text()
    path = world.api("kernels_pull", "alice/the-run/1", str(world.folder / "first"))
    assert "ours" in Path(path).read_text()


@never_run()
def test_a_version_is_named_by_its_label(world: World) -> None:
    world.push("the-run")
    world.push("the-run")
    world.kaggle.kernels.find("alice/the-run").versions[0].session.cancel()
    await_that(lambda: world.api("kernels_status", "alice/the-run/1")["status"] == "CANCEL_ACKNOWLEDGED")
    assert world.api("kernels_status", "alice/the-run/2")["status"] == "QUEUED"
    with pytest.raises(Refused) as refusal:
        world.api("kernels_status", "alice/the-run/3")
    assert refusal.value.status == 404
    world.kaggle.faults.add(fault("version label ignored"))
    assert world.api("kernels_status", "alice/the-run/1")["status"] == "QUEUED"


@never_run()
@pytest.mark.parametrize(("name", "seconds"), [("no runs for a while", 1.5), ("no runs ever", None)])
def test_there_may_be_no_run_yet(world: World, name: str, seconds: float | None) -> None:
    world.kaggle.faults.add(fault(name, effect=NoRun(seconds)))
    world.push("the-run")
    with pytest.raises(Refused, match="404") as refusal:
        world.api("kernels_status", "alice/the-run/1")
    assert refusal.value.status == 404
    session = world.kaggle.kernels.find("alice/the-run").latest.session
    if seconds:
        await_that(lambda: session.state == "QUEUED")
    else:
        assert not session.wait(0.6)
        assert session.state is None


# --- runs
def test_a_run_finds_its_inputs_and_gpus_and_leaves_its_files(world: World) -> None:
    folder = world.dataset("the-data", a_jsonl="row\n")
    (folder / "wheels").mkdir()
    (folder / "wheels/one.whl").write_text("wheel")
    world.api("dataset_create_new", str(folder), quiet=True, dir_mode="zip")
    await_that(lambda: world.status_or_refusal("the-data") == "ready")
    status = world.run(
        "the-run",
        "import json, os, subprocess",
        "from pathlib import Path",
        "root = Path(os.environ['KAGGLE_INPUT_DIR'])",
        "found = sorted(str(path.relative_to(root)) for path in root.rglob('*') if path.is_file())",
        "command = ['nvidia-smi', '--query-gpu=name,memory.total', '--format=csv,noheader']",
        "gpus = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()",
        "secrets = [name for name in os.environ if 'TOKEN' in name or 'proxy' in name.lower()]",
        "here = os.getcwd() == os.environ['KAGGLE_WORKING_DIR']",
        "print(json.dumps([found, gpus, secrets, here]))",
        "Path('adapter').mkdir()",
        "for n in range(25): Path(f'adapter/{n:02}.bin').write_text(str(n))",
        "Path('empty').mkdir()",
        "Path('link').symlink_to('adapter/00.bin')",
        dataset_sources=["alice/the-data"],
    )
    assert (status["status"], status["failureMessage"]) == ("COMPLETE", None)
    kept = world.output("alice/the-run/1")
    [entry] = json.loads(kept.pop("the-run.log"))
    assert entry.keys() == {"stream_name", "time", "data"}
    place = "datasets/alice/the-data"
    assert json.loads(entry["data"]) == [
        [f"{place}/a.jsonl", f"{place}/wheels/one.whl"],
        ["Tesla T4, 15360 MiB"] * 2,
        [],
        True,
    ]
    assert kept == {f"adapter/{n:02}.bin": str(n) for n in range(25)}
    assert len(world.kaggle.record.calls("ListKernelSessionOutput")) == 2  # pages of 20
    assert world.api("quota_view")["gpuQuota"]["hasEverRun"]
    assert world.kaggle.runs_started() == 1


def test_a_failed_run_keeps_its_files_and_its_traceback(world: World) -> None:
    status = world.run("the-run", "open('half.bin', 'w').write('half')", "raise ValueError('no such row')")
    assert (status["status"], status["failureMessage"]) == ("ERROR", None)
    kept = world.output("alice/the-run/1")
    assert kept["half.bin"] == "half"
    assert "no such row" in kept["the-run.log"]


def test_a_run_is_cancelled_by_the_number_that_only_it_knows(world: World) -> None:
    world.push(
        "the-run",
        "import os, subprocess, sys",
        "open('half.bin', 'w').write('half')",
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])",
        "print(os.environ['KAGGLE_CONTAINER_NAME'], flush=True)",
        "import time; time.sleep(600)",
    )
    await_that(lambda: world.api("kernels_status", "alice/the-run/1")["status"] == "RUNNING")
    session = world.kaggle.kernels.find("alice/the-run").latest.session
    assert session.wait_for_log("session", 20)
    assert world.api("kernels_logs", "alice/the-run/1") == ""  # a running version has no log but the stream
    number = int(re.search(r"-(\d+)-", next(session.follow())["data"])[1])
    world.kaggle.faults.add(fault("cancel breaks"))
    with pytest.raises(Refused, match="500 Server Error"):
        world.api("cancel", number)
    world.api("cancel", number)
    assert world.api("kernels_status", "alice/the-run/1")["status"] == "CANCEL_REQUESTED"
    assert session.wait(20)
    assert world.api("kernels_status", "alice/the-run/1")["status"] == "CANCEL_ACKNOWLEDGED"
    assert world.output("alice/the-run/1")["half.bin"] == "half"
    assert running(session.container) == []


def test_a_run_ends_at_its_time_limit(tmp_path: Path) -> None:
    with world_at(tmp_path, limits=Limits(second_s=0.001)) as world:  # an hour is 3.6 s
        status = world.run(
            "the-run", "print('begun', flush=True)", "import time; time.sleep(600)", timeout=3 * 3600 // 4
        )
        assert status["status"] == "CANCEL_ACKNOWLEDGED"
        assert "exceeded the max allowed execution duration" in status["failureMessage"]
        assert 0.5 < world.account.gpu_hours_used < 5


def test_the_files_of_a_cancelled_run_appear_one_after_the_other(tmp_path: Path) -> None:
    with world_at(tmp_path, delays=Delays(save_s=0.9)) as world:
        lines = [
            "for n in range(3): open(f'{n}.bin', 'w').close()",
            "print('saved', flush=True)",
            "while True: pass",
        ]
        world.push("the-run", *lines)
        session = world.kaggle.kernels.find("alice/the-run").latest.session
        assert session.wait_for_log("saved", 20)
        session.cancel()
        seen = set()
        while not session.ended:
            seen.add((session.state, len(world.api("kernels_list_files", "alice/the-run/1")["files"])))
        assert {("CANCEL_REQUESTED", 0), ("CANCEL_REQUESTED", 1), ("CANCEL_REQUESTED", 2)} <= seen
        assert len(world.api("kernels_list_files", "alice/the-run/1")["files"]) == 3


@pytest.mark.parametrize(
    ("name", "state", "says"),
    [
        ("out of memory", "ERROR", "allocate more memory"),
        ("session time-out", "CANCEL_ACKNOWLEDGED", "exceeded the max allowed"),
        ("session cancelled", "CANCEL_ACKNOWLEDGED", ""),
    ],
)
def test_kaggle_can_end_a_run_at_a_line_of_its_log(world: World, name: str, state: str, says: str) -> None:
    world.kaggle.faults.add(fault(name))
    status = world.run(
        "the-run", "open('half.bin', 'w').write('half')", "print('step 1', flush=True)", "while True: pass"
    )
    assert status["status"] == state
    assert says in (status["failureMessage"] or "")
    assert world.output("alice/the-run/1")["half.bin"] == "half"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("inputs missing", {}),
        ("inputs altered", {"datasets/alice/the-data/a.jsonl": "sow\n"}),
        ("inputs in the old layout", {"the-data/a.jsonl": "row\n"}),
    ],
)
def test_inputs_can_be_otherwise(world: World, name: str, found: dict[str, str]) -> None:
    world.create("the-data", a_jsonl="row\n")
    world.kaggle.faults.add(fault(name))
    world.run(
        "the-run",
        "import json, os, pathlib",
        "root = pathlib.Path(os.environ['KAGGLE_INPUT_DIR'])",
        "files = [path for path in root.rglob('*') if path.is_file()]",
        "print(json.dumps({str(path.relative_to(root)): path.read_text() for path in files}))",
        dataset_sources=["alice/the-data"],
    )
    [entry] = json.loads(world.api("kernels_logs", "alice/the-run/1"))
    assert json.loads(entry["data"]) == found


def test_a_runs_outputs_are_the_next_ones_input_but_not_its_own(world: World, tmp_path: Path) -> None:
    world.run("first-run", "open('checkpoint.bin', 'w').write('step 100')")
    assert world.push("first-run", kernel_sources=["alice/first-run"])["invalidKernelSources"]
    world.run(
        "next-run",
        "import os, pathlib",
        "root = pathlib.Path(os.environ['KAGGLE_INPUT_DIR'])",
        "print((root / 'notebooks/alice/first-run/checkpoint.bin').read_text())",
        kernel_sources=["alice/first-run/1"],
    )
    assert "step 100" in world.api("kernels_logs", "alice/next-run/1")


def test_a_model_is_mounted_by_its_whole_reference(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with world_at(tmp_path, models={"qwen/qwen3/transformers/0.6b/1": model}) as world:
        lines = [
            "import os",
            "print(os.listdir(os.environ['KAGGLE_INPUT_DIR'] + '/models/qwen/qwen3/transformers/0.6b/1'))",
        ]
        world.run("the-run", *lines, model_sources=["qwen/qwen3/transformers/0.6b/1"])
        assert "config.json" in world.api("kernels_logs", "alice/the-run/1")


def test_a_notebook_without_a_kernel_name_fails(world: World) -> None:
    folder = world.kernel("the-run", "print('never')")
    notebook = json.loads((folder / "notebook.ipynb").read_text())
    del notebook["metadata"]["kernelspec"]
    (folder / "notebook.ipynb").write_text(json.dumps(notebook))
    world.api("kernels_push", str(folder))
    assert world.kaggle.kernels.find("alice/the-run").latest.session.wait(20)
    assert world.api("kernels_status", "alice/the-run/1")["status"] == "ERROR"
    assert "No kernel name found in notebook" in world.api("kernels_logs", "alice/the-run/1")


@pytest.mark.parametrize(
    ("name", "kept"),
    [("output files missing", {"the-run.log"}), ("log missing", {"adapter.bin"})],
)
def test_what_a_run_left_can_be_lost(world: World, name: str, kept: set[str]) -> None:
    world.kaggle.faults.add(fault(name))
    world.run("the-run", "open('adapter.bin', 'w').write('weights')", "print('trained')")
    assert set(world.output("alice/the-run/1")) == kept


def test_a_runs_log_comes_live_and_again_from_its_beginning_after_a_drop(world: World) -> None:
    world.push(
        "the-run",
        "import os, time",
        "print('step 1', flush=True)",
        "while not os.path.exists('go-on'): time.sleep(0.02)",
        "print('step 2')",
    )
    session = world.kaggle.kernels.find("alice/the-run").latest.session
    assert session.wait_for_log("step 1", 20)
    world.kaggle.faults.add(fault("log stream dropped"))
    with pytest.raises(Refused, match=r"ChunkedEncodingError|ConnectionError"):
        world.api("kernels_logs_stream", "alice/the-run/1")
    world.api.begin("kernels_logs_stream", "alice/the-run/1")
    (session.working / "go-on").touch()
    events = world.api.result()
    assert [event["data"] for event in events] == ["step 1\n", "step 2\n"]
    assert [event["stream_name"] for event in events] == ["stdout", "stdout"]


def test_a_run_can_seem_to_go_on_for_ever(world: World) -> None:
    world.kaggle.faults.add(fault("session stays running"))
    assert world.run("the-run", "print('trained')")["status"] == "RUNNING"


@pytest.mark.parametrize(
    ("gpus", "listed"),
    [
        (("Tesla T4", "Tesla T4"), "name, memory.total [MiB]\nTesla T4, 15360 MiB\nTesla T4, 15360 MiB\n"),
        (("Tesla P100-PCIE-16GB",), "name, memory.total [MiB]\nTesla P100-PCIE-16GB, 16384 MiB\n"),
    ],
)
def test_nvidia_smi_lists_the_sessions_gpus(tmp_path: Path, gpus: tuple[str, ...], listed: str) -> None:
    Sandbox(tmp_path / "box", "box-1", gpus)
    query = [tmp_path / "box/bin/nvidia-smi", "--query-gpu=name,memory.total", "--format=csv"]
    assert subprocess.run(query, capture_output=True, text=True, check=True).stdout == listed


def test_nvidia_smi_fails_where_there_is_no_gpu(tmp_path: Path) -> None:
    Sandbox(tmp_path / "box", "box-1", ())
    assert (
        subprocess.run([tmp_path / "box/bin/nvidia-smi", "-L"], capture_output=True, check=False).returncode == 9
    )


@pytest.mark.parametrize(
    ("name", "gpus"),
    [("wrong gpu", ["Tesla P100-PCIE-16GB"]), ("one gpu only", ["Tesla T4"]), ("no gpu", [])],
)
def test_a_session_can_get_another_machine(world: World, name: str, gpus: list[str]) -> None:
    world.kaggle.faults.add(fault(name))
    world.run(
        "the-run",
        "import json, subprocess",
        "command = ['nvidia-smi', '--query-gpu=name', '--format=csv,noheader']",
        "run = subprocess.run(command, capture_output=True, text=True)",
        "print(json.dumps(run.stdout.splitlines() if run.returncode == 0 else []))",
    )
    [entry] = json.loads(world.api("kernels_logs", "alice/the-run/1"))
    assert json.loads(entry["data"]) == gpus


# --- faults of reading, on a run that has ended
READS = {
    "GetKernelSessionStatus": ("kernels_status", "alice/the-run/1"),
    "ListKernelSessionOutput": ("kernels_logs", "alice/the-run/1"),
    "GetDatasetStatus": ("dataset_status", "alice/the-data"),
    "GetAcceleratorQuotaStatistics": ("quota_view",),
    "GetKernel": ("kernels_pull", "alice/the-run/1", "pulled"),
    "stream": ("kernels_logs_stream", "alice/the-run/1"),
}


@pytest.mark.parametrize(
    "name", [name for name, entry in FAULTS.items() if entry.place in READS and "dropped" not in name]
)
def test_a_fault_of_reading_strikes_once_and_is_over(finished: World, name: str) -> None:
    struck = fault(name, lasting_s=None, times=1)
    read = READS[struck.place]
    undisturbed = finished.api(*read)
    finished.kaggle.faults.add(struck)
    finished.api.begin(*read)
    if isinstance(struck.effect, HangBefore):
        await_that(lambda: finished.kaggle.faults.hits[name] == 1)
        finished.kaggle.faults.lift(name)
    if isinstance(struck.effect, Alter) and name != "status unknown":
        assert finished.api.result() != undisturbed
    else:
        kind = {"status unknown": "KeyError", "status hangs": "ConnectionError"}.get(name, "HTTPError")
        with pytest.raises(Refused) as refusal:
            finished.api.result()
        assert kind in refusal.value.kinds
    assert finished.api(*read) == undisturbed
    assert finished.kaggle.record.calls(struck.place)[-2].fault == name


def test_a_dropped_status_is_a_connection_error(finished: World) -> None:
    finished.kaggle.faults.add(fault("status dropped"))
    with pytest.raises(Refused) as refusal:
        finished.api("kernels_status", "alice/the-run/1")
    assert "ConnectionError" in refusal.value.kinds


def test_an_absent_status_reads_as_queued(finished: World) -> None:
    finished.kaggle.faults.add(fault("status absent"))
    assert finished.api("kernels_status", "alice/the-run/1")["status"] == "QUEUED"


def test_a_gateways_error_loses_its_message_and_a_plain_one_keeps_it(finished: World) -> None:
    finished.kaggle.faults.add(fault("status gateway error"), fault("status error code on 200"))
    with pytest.raises(Refused, match="502 Server Error: Bad Gateway for url"):
        finished.api("kernels_status", "alice/the-run/1")
    with pytest.raises(Refused, match="HTTPError: Something went wrong"):
        finished.api("kernels_status", "alice/the-run/1")


def test_a_fault_lasts_as_long_as_it_says(finished: World) -> None:
    finished.kaggle.faults.add(fault("status breaks for a while", lasting_s=0.3))
    with pytest.raises(Refused, match="500 Server Error"):
        finished.api("kernels_status", "alice/the-run/1")

    def answers() -> bool:
        try:
            return finished.api("kernels_status", "alice/the-run/1")["status"] == "COMPLETE"
        except Refused:
            return False

    await_that(answers, seconds=5)
    finished.kaggle.faults.lift("status breaks for a while")


def test_a_cut_download_is_resumed_by_the_client(finished: World) -> None:
    finished.kaggle.faults.add(fault("download cut"))
    assert finished.output("alice/the-run/1")["adapter.bin"] == "weights" * 1000
    assert [call.status for call in finished.kaggle.record.calls("download")[-2:]] == [200, 206]


@pytest.mark.parametrize(
    ("name", "content"),
    [("download truncated", "weights" * 500), ("download altered", "veights" + "weights" * 999)],
)
def test_a_download_can_be_wrong_without_a_sign(finished: World, name: str, content: str) -> None:
    finished.kaggle.faults.add(fault(name))
    assert finished.output("alice/the-run/1")["adapter.bin"] == content


@pytest.mark.parametrize(("name", "status"), [("download expired", 403), ("download breaks", 503)])
def test_a_download_can_fail(finished: World, name: str, status: int) -> None:
    finished.kaggle.faults.add(fault(name))
    with pytest.raises(Refused) as refusal:
        finished.output("alice/the-run/1")
    assert refusal.value.status == status


def test_a_hanging_download_fails_when_the_fault_is_lifted(finished: World) -> None:
    finished.kaggle.faults.add(fault("download hangs"))
    finished.api.begin("kernels_output", "alice/the-run/1", str(finished.folder / "hanging"), force=True)
    await_that(lambda: finished.kaggle.faults.hits["download hangs"] == 1)
    finished.kaggle.faults.lift("download hangs")
    with pytest.raises(Refused) as refusal:
        finished.api.result()
    assert "ConnectionError" in refusal.value.kinds


def test_a_log_is_also_given_by_the_rpc(finished: World) -> None:
    url = f"{finished.kaggle.url}/api/v1/kernels.KernelsApiService/GetKernelSessionLogsStream"
    body = json.dumps({"userName": "alice", "kernelSlug": "the-run", "versionLabel": "v1"}).encode()
    request = urllib.request.Request(url, body, {"Authorization": f"Bearer {finished.account.token}"})
    with urllib.request.urlopen(request) as answer:
        assert [event["data"] for event in json.load(answer)] == ["trained\n"]


def test_a_signed_url_expires_by_itself(tmp_path: Path) -> None:
    with world_at(tmp_path, delays=Delays(url_life_s=0)) as world:
        world.run("the-run", "open('adapter.bin', 'w').write('weights')")
        with pytest.raises(Refused) as refusal:
            world.output("alice/the-run/1")
    assert refusal.value.status == 403


def test_requests_are_counted(finished: World) -> None:
    before = len(finished.kaggle.record.calls("GetKernelSessionStatus"))
    for _ in range(3):
        finished.api("kernels_status", "alice/the-run/1")
    assert len(finished.kaggle.record.calls("GetKernelSessionStatus")) == before + 3
    assert finished.kaggle.record.busiest("GetKernelSessionStatus", 60) >= 3
    assert finished.kaggle.runs_started() == 1


def test_a_fault_that_is_in_force_cannot_be_added_again(finished: World) -> None:
    finished.kaggle.faults.add(fault("pull breaks"))
    with pytest.raises(ValueError, match="in force already"):
        finished.kaggle.faults.add(fault("pull breaks"))
    finished.kaggle.faults.lift("pull breaks")
    assert finished.api("kernels_pull", "alice/the-run/1", "pulled")


def running(container: str) -> list[int]:
    """The processes of a session that are alive."""
    marker = f"KAGGLE_CONTAINER_NAME={container}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if marker in (place / "environ").read_bytes():
                found.append(int(place.name))
        except OSError:  # it ended, or belongs to another user
            continue
    return found
