"""Training on Kaggle, against one on loopback: whatever goes wrong, one run, the right adapter, one clear line.

The client is the real one, unpatched; the notebook is the one that is pushed to Kaggle, and really runs.
"""

import errno
import importlib.metadata
import importlib.util
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml
from kaggle_tree import HASTE, ROW, Tree
from stand_in_kaggle import Account, Fault, StandInKaggle, alice, client, fault, serve
from stand_in_kaggle.effects import Refuse
from stand_in_kaggle.faults import DOWNLOAD, STREAM, UPLOAD
from stand_in_kaggle.messages import RPCS

from stages.training.client import Kaggle, client_environment
from stages.training.estimate import check_quota
from stages.training.failures import BusyError, CallError, CredentialsError, QuotaError, RefusedError
from stages.training.kaggle_calls import describe
from stages.training.live import reason
from stages.training.push import judge, metadata_for
from stages.training.redaction import own_secrets, redact
from stages.training.settings import KaggleSettings, kaggle_settings

DONE, CREDENTIALS, QUOTA, BUSY, REFUSED, UNREACHABLE, FAILED, CANCELLED, ARTEFACT, UNFINISHED = 0, *range(21, 30)


@pytest.fixture
def account() -> Account:
    return alice()


@pytest.fixture
def kaggle(tmp_path: Path, account: Account) -> Iterator[StandInKaggle]:
    with serve(StandInKaggle(tmp_path / "stand-in", accounts=[account])) as served:
        yield served


@pytest.fixture
def tree(tmp_path: Path, kaggle: StandInKaggle, account: Account) -> Tree:
    return planted(tmp_path, kaggle, account)


def planted(folder: Path, kaggle: StandInKaggle, account: Account) -> Tree:
    tree = Tree(folder / "tree", kaggle, account)
    tree.use_stand_in_trainer()
    return tree


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The adapter of a run in which nothing went wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    owner = alice()
    with serve(StandInKaggle(folder / "stand-in", accounts=[owner])) as served:
        tree = planted(folder, served, owner)
        done = tree.run()
        assert done.returncode == DONE, done.stdout
        assert served.runs_started() == 1
        digest = tree.adapter()
    shutil.rmtree(folder)
    return digest


@contextmanager
def process_lists() -> Iterator[set[str]]:
    """The command lines of all processes, looked at again and again while the block runs."""
    seen: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            seen.update(" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield seen
    finally:
        done.set()
        looker.join()


def test_our_folder_does_not_hide_the_client():
    assert Path(importlib.util.find_spec("kaggle").origin).parent.parent.name == "site-packages"
    assert importlib.metadata.version("kaggle") == "2.2.5"
    assert importlib.metadata.version("kagglesdk") == "0.1.38"


@pytest.mark.slow
def test_a_run_is_trained_once_and_its_results_are_put_in_place(
    tree: Tree, kaggle: StandInKaggle, undisturbed: str
):
    dry = tree.run("submit", "--dry-run")
    assert dry.returncode == DONE
    assert "needs about" in dry.stdout
    assert not kaggle.record.calls("SaveKernel") + kaggle.record.calls("CreateDataset")

    with process_lists() as seen:
        first = tree.run()
    assert first.returncode == DONE, first.stdout
    assert any("stages.training.kaggle_worker" in words for words in seen)
    assert not any(tree.account.token in words or tree.account.key in words for words in seen)
    assert "loss 0.500, 00:01 left" in first.stdout
    assert "oops-session" in first.stdout
    metrics = json.loads((tree.folder / "metrics/tiny/correct/train.json").read_text())
    assert metrics["gpu_hours"] > 0
    assert "gpu_hours_estimated" in metrics
    assert (tree.folder / "plots/tiny/correct/train/loss.csv").is_file()
    assert tree.adapter() == undisturbed

    asked = len(kaggle.record.calls())
    shutil.rmtree(tree.folder / "models/tiny/correct/adapter")  # as dvc does before it runs a stage
    tree.signed_in = False
    assert tree.run().returncode == DONE
    assert tree.adapter() == undisturbed
    assert len(kaggle.record.calls()) == asked  # the verified result is in the cache

    tree.forget()
    assert tree.run().returncode == CREDENTIALS
    tree.signed_in = True
    again = tree.run()
    assert again.returncode == DONE, again.stdout
    assert "pushed from elsewhere" in again.stdout
    assert tree.adapter() == undisturbed
    assert kaggle.runs_started() == 1
    assert not tree.secrets_in()


# fault, exit status while it lasts, runs that were started in the end
FAULTS = [
    ("introspection refused", DONE, 1),
    ("introspection breaks", DONE, 1),
    ("token inactive", CREDENTIALS, 1),
    ("push dropped before", DONE, 1),
    ("push dropped after", DONE, 1),
    ("push hangs before", UNREACHABLE, 1),
    ("push hangs after", DONE, 1),
    ("push breaks", DONE, 1),
    ("push times out after", DONE, 1),
    ("push too many requests", DONE, 1),
    ("push conflict", REFUSED, 1),
    ("push error code on 200", REFUSED, 1),
    ("push error in body", REFUSED, 1),
    ("push without version", REFUSED, 1),
    ("session count reached", DONE, 1),
    ("quota reached", QUOTA, 1),
    ("dataset source invalid", REFUSED, 2),  # the first stops by itself, without its data
    ("another version pushed", DONE, 2),  # the second is somebody else's
    ("status dropped", DONE, 1),
    ("status hangs", UNREACHABLE, 1),
    ("status breaks for a while", DONE, 1),
    ("status gateway error", DONE, 1),
    ("status too many requests", DONE, 1),
    ("status too many requests, retry after", DONE, 1),
    ("status error code on 200", DONE, 1),
    ("status absent", DONE, 1),
    ("status unknown", DONE, 1),
    ("version label ignored", DONE, 1),
    ("no runs for a while", DONE, 1),
    ("no runs ever", FAILED, 1),
    ("dataset creation dropped before", DONE, 1),
    ("dataset creation dropped after", DONE, 1),
    ("dataset creation hangs after", DONE, 1),
    ("dataset creation too many requests", DONE, 1),
    ("dataset creation error in body", REFUSED, 1),
    ("dataset status breaks", DONE, 1),
    ("dataset denied for good", UNREACHABLE, None),  # only the owner can delete it
    ("dataset failed", REFUSED, None),
    ("dataset files not listed yet", DONE, 1),
    ("dataset never ready", UNREACHABLE, None),
    ("upload dropped", DONE, 1),
    ("upload interrupted", DONE, 1),
    ("upload expired", DONE, 1),
    ("upload refused", DONE, 1),
    ("wrong gpu", FAILED, 2),
    ("one gpu only", FAILED, 2),
    ("no gpu", FAILED, 2),
    ("out of memory", FAILED, 2),
    ("session time-out", FAILED, 2),
    ("session cancelled", CANCELLED, 2),
    ("session stays running", UNFINISHED, None),  # only cancelling ends it
    ("inputs missing", FAILED, 2),
    ("inputs altered", FAILED, 2),
    ("inputs in the old layout", DONE, 1),
    ("output files missing", ARTEFACT, 2),
    ("log missing", DONE, 1),
    ("outputs break", DONE, 1),
    ("outputs too many requests", DONE, 1),
    ("download cut", DONE, 1),
    ("download truncated", DONE, 1),
    ("download altered", DONE, 1),
    ("download expired", DONE, 1),
    ("download breaks", DONE, 1),
    ("download hangs", DONE, 1),
    ("log stream dropped", DONE, 1),
    ("log stream breaks", DONE, 1),
    ("quota statistics break", DONE, 1),
    ("quota statistics absent", DONE, 1),
    ("quota without a total", DONE, 1),
    ("pull breaks", DONE, 1),
]


@pytest.fixture(scope="module")
def endured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, undisturbed: str
) -> Iterator[dict[str | int, Future[None]]]:
    """All that this session asks of a driver in trouble, some at a time: half of each is waiting."""
    asked = {item.callspec.params["trouble"] for item in request.session.items if "endured" in item.fixturenames}
    with ThreadPoolExecutor(max_workers=3) as pool:

        def begin(ordeal: Callable[..., None], *facts: object) -> Future[None]:
            return pool.submit(ordeal, tmp_path_factory.mktemp("trouble"), undisturbed, *facts)

        faults = {name: begin(endure, name, status, runs) for name, status, runs in FAULTS if name in asked}
        kills = {seed: begin(survive, seed) for seed in KILLED if seed in asked}
        yield faults | kills
        pool.shutdown(cancel_futures=True)


def endure(folder: Path, undisturbed: str, name: str, status: int, runs: int | None) -> None:
    """Run the stage while the fault lasts, and after it is lifted."""
    owner = alice()
    with serve(StandInKaggle(folder / "stand-in", accounts=[owner])) as kaggle:
        tree = planted(folder, kaggle, owner)
        kaggle.faults.add(fault(name))

        during = tree.run()

        assert during.returncode == status, during.stdout
        ours = [line for line in during.stdout.splitlines() if not line.startswith("  | ")]  # not the notebook's
        assert not any("Traceback" in line for line in ours), during.stdout
        assert tree.adapter() == (undisturbed if status == DONE else None)
        if status != DONE:
            assert ours[-1].startswith("train: error: ")
            assert "{" not in ours[-1]  # a reason, not the source that prints it
        kaggle.faults.lift_all()
        if runs is not None:
            for _ in range(3):  # a run that was started in vain must end before the next one
                after = tree.run()
                if after.returncode == DONE:
                    break
            assert after.returncode == DONE, after.stdout
            assert tree.adapter() == undisturbed
            assert kaggle.runs_started() == runs
        assert not tree.secrets_in()
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", [entry[0] for entry in FAULTS], ids=lambda name: name.replace(" ", "-"))
def test_a_fault_gets_its_answer_and_costs_no_second_run(endured: dict[str | int, Future[None]], trouble: str):
    endured[trouble].result()


KILLED = range(5)
"""Rehearsals, each of which is killed ten times."""


def survive(folder: Path, undisturbed: str, seed: int) -> None:
    """Kill the driver at ten random moments of one run, then let it end."""
    owner = alice()
    with serve(StandInKaggle(folder / "stand-in", accounts=[owner])) as kaggle:
        tree = planted(folder, kaggle, owner)
        moments = random.Random(seed)
        kills, whole_s = 0, 4.0
        while kills < 10:
            begin = time.monotonic()
            if tree.kill_after(moments.uniform(0.1, 1) * whole_s):
                kills += 1
                shutil.rmtree(
                    tree.folder / "models/tiny/correct", ignore_errors=True
                )  # as dvc does before a stage
            else:
                whole_s = time.monotonic() - begin  # on a fast machine much less than at first
                tree.forget()  # it had come to its end: from here on another machine goes on
        done = tree.run()
        assert done.returncode == DONE, done.stdout
        assert tree.adapter() == undisturbed
        assert len(kaggle.kernels.sessions) == 1
        assert not tree.secrets_in()
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", KILLED)
def test_kill_9_at_any_moment_leaves_one_run_and_the_right_adapter(
    endured: dict[str | int, Future[None]], trouble: int
):
    endured[trouble].result()


@pytest.mark.slow
def test_a_run_longer_than_a_session_goes_on_from_its_checkpoint(tree: Tree, kaggle: StandInKaggle):
    tree.use_stand_in_trainer(stops=2)
    done = tree.run()
    assert done.returncode == DONE, done.stdout
    assert kaggle.runs_started() == 3
    assert tree.adapter()

    sessions = tree.attempts()
    assert [round(session["progress"], 2) for session in sessions] == [0.33, 0.67, 0]
    needs = [session["estimate_s"] for session in sessions]
    assert needs[0] > needs[1] > needs[2]  # of a run that is under way, only the rest
    spent_s = sum(session["session_s"] for session in sessions)
    metrics = json.loads((tree.folder / "metrics/tiny/correct/train.json").read_text())
    assert metrics["gpu_hours"] == round(spent_s / 3600, 4) > sessions[-1]["session_s"] / 3600
    assert metrics["gpu_hours_estimated"] == round(needs[0] / 3600, 4)


def hangs_after_a_checkpoint(tree: Tree, kaggle: StandInKaggle, ending: str) -> None:
    """A trainer that saves a checkpoint and then does nothing, until Kaggle ends its session so."""
    tree.use_stand_in_trainer(stops=1, hangs=60)
    effect = replace(fault(ending).effect, at="train: saved")
    kaggle.faults.add(replace(fault(ending), effect=effect))


@pytest.mark.slow
def test_a_trainer_that_hangs_is_ended_in_time_to_keep_its_checkpoint(tree: Tree, kaggle: StandInKaggle):
    tree.use_stand_in_trainer(stops=1, hangs=600)  # longer than the test waits: nothing but the guard ends it
    slow = yaml.safe_load(tree.settings.read_text()) | {"margin_s": 16}
    # a session of 36 seconds, and a guard 28 after the notebook's start: a busy machine needs some for either
    slow["estimates"]["tiny"]["start_s"] = 2
    tree.settings.write_text(yaml.safe_dump(slow))
    during = tree.run()
    assert during.returncode == FAILED, during.stdout
    assert "run again to go on from its checkpoint" in during.stdout
    assert tree.attempts()[0]["session_s"] > 27
    after = tree.run()
    assert after.returncode == DONE, after.stdout
    assert kaggle.runs_started() == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "status"),
    [("session cancelled", CANCELLED), ("out of memory", FAILED)],
)
def test_a_session_that_kaggle_ends_leaves_its_checkpoint_to_the_next(
    tree: Tree, kaggle: StandInKaggle, ending: str, status: int
):
    hangs_after_a_checkpoint(tree, kaggle, ending)
    kaggle.faults.add(fault("download altered", times=4))

    during = tree.run()

    assert during.returncode == status, during.stdout
    assert "run again to go on from its checkpoint" in during.stdout
    assert kaggle.faults.hits["download altered"] == 4
    kaggle.faults.add(fault("wrong gpu"))  # a session that leaves none is no reason to begin anew
    assert tree.run().returncode == FAILED
    after = tree.run()
    assert after.returncode == DONE, after.stdout
    assert "3 datasets verified" in after.stdout
    assert kaggle.runs_started() == 3


@pytest.mark.slow
def test_a_session_cut_off_at_its_limit_is_gone_on_from_at_once(tree: Tree, kaggle: StandInKaggle):
    hangs_after_a_checkpoint(tree, kaggle, "session time-out")
    done = tree.run()
    assert done.returncode == DONE, done.stdout
    assert "its session was too short" in done.stdout
    assert kaggle.runs_started() == 2


@pytest.mark.slow
def test_nobody_elses_checkpoint_is_taken_for_ours(tree: Tree, kaggle: StandInKaggle):
    hangs_after_a_checkpoint(tree, kaggle, "session time-out")
    trainer = tree.folder / "kaggle/train_lora.py"
    trainer.write_text(trainer.read_text().replace('"run_id": run["run_id"]', '"run_id": "oops-other"'))
    during = tree.run()
    assert during.returncode == FAILED, during.stdout
    assert "from its checkpoint" not in during.stdout
    assert tree.attempts()[0]["checkpoint"] is None


@pytest.mark.slow
def test_an_outage_of_everything_at_any_stage_costs_only_time(tree: Tree, kaggle: StandInKaggle, undisturbed: str):
    """Kaggle's 500 for an hour, which here is a second of the six that the driver has patience for."""
    broken = Refuse(500, {"error": {"code": 500, "message": "Internal error encountered.", "status": "INTERNAL"}})
    places = [*RPCS, UPLOAD, DOWNLOAD, STREAM]

    def go_out() -> None:
        kaggle.faults.add(*(Fault(f"{place} is out", place, broken, times=None) for place in places))
        time.sleep(2)
        kaggle.faults.lift_all()

    trainer = tree.folder / "kaggle/train_lora.py"
    trainer.write_text(trainer.read_text().replace("time.sleep(0.3)", "time.sleep(3)"))
    driver = tree.start(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    go_out()
    for reached in (lambda: kaggle.record.calls("SaveKernel"), lambda: kaggle.runs_started()):
        while not reached():
            assert driver.poll() is None, driver.stdout.read()
            time.sleep(0.05)
        go_out()
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == DONE, said
    assert sum(kaggle.faults.hits.values()) > 5
    assert tree.adapter()
    assert kaggle.runs_started() == 1


@pytest.mark.slow
def test_another_run_of_ours_keeps_a_second_one_from_starting(tree: Tree, kaggle: StandInKaggle):
    tree.use_stand_in_trainer(stops=1, hangs=60)
    assert tree.run("submit").returncode == DONE
    (tree.folder / "data/dataset/train.jsonl").write_text(ROW * 5)  # another run
    for command in (("submit", "--dry-run"), ("submit",)):
        second = tree.run(*command)
        assert second.returncode == BUSY, second.stdout
        assert "another run of ours is" in second.stdout
    assert len(kaggle.kernels.sessions) == 1


@pytest.mark.slow
def test_what_the_log_shows_of_our_secrets_is_taken_out_of_it(tree: Tree, kaggle: StandInKaggle):
    trainer = tree.folder / "kaggle/train_lora.py"
    shown = f"print('it said {tree.account.token}', flush=True); time.sleep(2)"
    trainer.write_text(trainer.read_text().replace("time.sleep(0.3)", shown))
    done = tree.run()
    assert done.returncode == DONE, done.stdout
    assert "it said [secret]" in done.stdout
    logs = list(tree.folder.glob(".cache/kaggle/*/*.log"))
    assert len(logs) == 2
    assert all("it said [secret]" in log.read_text() for log in logs)


@pytest.mark.slow
def test_a_long_wait_outlives_a_moment_in_which_kaggle_knows_no_run(tree: Tree, kaggle: StandInKaggle):
    trainer = tree.folder / "kaggle/train_lora.py"
    trainer.write_text(trainer.read_text().replace("time.sleep(0.3)", "time.sleep(8)"))
    assert tree.run("submit").returncode == DONE
    waiting = tree.start(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert kaggle.kernels.sessions[0].wait_for_log("left]", 30)
    time.sleep(HASTE["no_run_grace_s"] + 1)
    nothing = {"error": {"code": 404, "message": "No runs found for this kernel.", "status": "NOT_FOUND"}}
    kaggle.faults.add(Fault("no runs for a moment", "GetKernelSessionStatus", Refuse(404, nothing)))
    said, _ = waiting.communicate(timeout=60)
    assert kaggle.faults.hits["no runs for a moment"] == 1
    assert waiting.returncode == DONE, said
    assert kaggle.runs_started() == 1


@pytest.mark.slow
def test_an_outage_while_the_output_is_fetched_loses_no_run(tree: Tree, kaggle: StandInKaggle, undisturbed: str):
    kaggle.faults.add(replace(fault("download breaks"), times=None, lasting_s=8.0))
    done = tree.run()
    assert done.returncode == DONE, done.stdout
    assert kaggle.faults.hits["download breaks"] > HASTE["fetch_tries"]
    assert tree.adapter() == undisturbed
    assert kaggle.runs_started() == 1


@pytest.mark.slow
def test_a_lost_machine_finds_its_second_session_though_the_first_one_was_deleted(
    tree: Tree, kaggle: StandInKaggle
):
    tree.use_stand_in_trainer(stops=1)
    assert tree.run().returncode == DONE
    first, _ = (attempt["slug"] for attempt in tree.attempts())
    with client(tree.environment, tree.folder) as api:
        api("kernels_delete", f"{tree.account.name}/{first}", no_confirm=True)
    tree.forget()
    done = tree.run()
    assert done.returncode == DONE, done.stdout
    assert kaggle.runs_started() == 2


def test_drivers_that_start_at_once_on_a_new_machine_all_reach_the_client(tree: Tree):
    """The client makes its folder at import, and fails where another process has just made it."""
    new = tree.folder / "new/home"
    drivers = [Kaggle(tree.environment, new) for _ in range(3)]
    with ThreadPoolExecutor(len(drivers)) as pool:
        answers = list(pool.map(lambda driver: driver.call("whoami", 30), drivers))
    for driver in drivers:
        driver.close()
    assert answers == [{"username": tree.account.name}] * 3
    assert not (Path(tree.environment["HOME"]) / ".config").exists()


def test_a_full_disk_is_told_from_what_kaggle_sent():
    try:
        raise RuntimeError("the client's own words") from OSError(errno.ENOSPC, "No space left on device", "x.zip")
    except RuntimeError as error:
        found = describe(error)
    assert (found["kind"], found["message"]) == ("disk", "the disk is full (x.zip)")
    assert not CallError(**found).is_transient


def test_a_client_that_is_not_installed_is_told_at_once():
    hidden = (
        "import sys; sys.modules['kagglesdk'] = None; from stages.training.kaggle_worker import serve; serve()"
    )
    request = json.dumps({"operation": "whoami", "arguments": {}}) + "\n"
    done = subprocess.run(
        [sys.executable, "-c", hidden], input=request, capture_output=True, text=True, timeout=60
    )
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "client"
    assert "make venv" in error["message"]


@pytest.mark.slow
def test_a_running_run_is_cancelled_by_its_number_and_a_later_one_takes_its_place(
    tree: Tree, kaggle: StandInKaggle, undisturbed: str
):
    trainer = tree.folder / "kaggle/train_lora.py"
    trainer.write_text(trainer.read_text().replace("time.sleep(0.3)", "time.sleep(20)"))
    assert tree.run("submit").returncode == DONE
    [session] = kaggle.kernels.sessions
    assert session.wait_for_log("left]", 30)
    waiting = tree.start("wait", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert "running" in tree.run("status").stdout
    kaggle.faults.add(fault("cancel breaks"))

    cancelled = tree.run("cancel")

    assert cancelled.returncode == DONE, cancelled.stdout
    said, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == CANCELLED, said
    assert "was cancelled" in said


@pytest.mark.slow
def test_polling_costs_at_most_two_requests_an_interval(tree: Tree, kaggle: StandInKaggle):
    trainer = tree.folder / "kaggle/train_lora.py"
    trainer.write_text(trainer.read_text().replace("time.sleep(0.3)", "time.sleep(8)"))
    tree.settings.write_text(tree.settings.read_text().replace("poll_s: 0.3", "poll_s: 2.0"))
    done = tree.run()
    assert done.returncode == DONE, done.stdout
    assert kaggle.record.busiest("GetKernelSessionStatus", 1.9) <= 1
    assert kaggle.record.busiest("stream", 0.4) <= 1


def settings() -> KaggleSettings:
    return kaggle_settings().model_copy(update=HASTE)


ANSWER = {"error": None, "version": 1, "ref": "/code/alice/oops-1", "url": "", "invalid": {}}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"error": "Maximum batch GPU session count of 2 reached."}, BusyError),
        ({"error": "Maximum weekly GPU quota of 30.00 hours reached."}, QuotaError),
        ({"error": "Notebook not found"}, RefusedError),
        ({"invalid": {"models": ["a/b"]}}, RefusedError),
        ({"version": 0}, RefusedError),
        ({"ref": "/code/alice/another"}, RefusedError),
    ],
)
def test_a_push_has_succeeded_only_if_kaggle_says_all_of_it(changes, kind):
    assert judge(ANSWER, "alice", "oops-1") == 1
    with pytest.raises(kind):
        judge({**ANSWER, **changes}, "alice", "oops-1")


def test_the_quota_counts_what_is_reserved():
    quota = {"reset": "2026-11-28", "gpu": {"used_s": 3600.0, "reserved_s": 36000.0, "total_s": 43200.0}}
    assert "of the 1.0 h" in check_quota(quota, 3600)
    with pytest.raises(QuotaError, match="2026-11-28"):
        check_quota(quota, 3601)
    assert "does not say" in check_quota({"reset": None, "gpu": None}, 3600)


def test_the_client_sees_one_way_to_sign_in_and_no_stray_settings(tmp_path, capsys):
    stray = {
        "VERBOSE": "1",
        "KAGGLE_TOKEN": "x",
        "KAGGLE_PROXY": "x",
        "NETRC": "x",
        "KAGGLE_API_ENVIRONMENT": "TEST",
    }
    both = {"KAGGLE_API_TOKEN": "KGAT_1", "KAGGLE_USERNAME": "alice", "KAGGLE_KEY": "k"}
    seen = client_environment({**stray, **both, "PATH": "/bin"}, tmp_path)
    assert set(seen) == {"PATH", "HOME", "KAGGLE_CONFIG_DIR", "KAGGLE_API_TOKEN"}

    legacy = client_environment({"KAGGLE_USERNAME": "alice", "KAGGLE_KEY": "k"}, tmp_path)
    assert legacy["KAGGLE_KEY"] == "k"
    assert "warning" in capsys.readouterr().err
    with pytest.raises(CredentialsError, match="KAGGLE_API_TOKEN"):
        client_environment({"KAGGLE_USERNAME": "alice"}, tmp_path)


def test_secrets_are_taken_out_of_what_is_shown():
    text = "Bearer KGAT_abc at https://storage/x/y?X-Goog-Signature=12&b=3 with s3cret, Authorization: Basic abc=="
    assert redact(text, ("s3cret",)) == (
        "Bearer [secret] at https://storage/x/y?[signed] with [secret], Authorization: Basic [secret]"
    )


def test_both_ways_to_sign_in_are_secrets():
    assert own_secrets({"KAGGLE_API_TOKEN": "t", "KAGGLE_USERNAME": "alice", "KAGGLE_KEY": "k"}) == ("t", "k")
    assert own_secrets({"KAGGLE_KEY": ""}) == ()


def test_the_pushed_metadata_is_private_without_internet_and_its_title_is_its_slug():
    metadata = metadata_for("oops-tiny-1", "alice", ["alice/data"], settings())
    assert (metadata["id"], metadata["title"]) == ("alice/oops-tiny-1", "oops-tiny-1")
    assert metadata["is_private"] is True
    assert metadata["enable_internet"] is False
    assert metadata["machine_shape"] == "NvidiaTeslaT4"


def test_the_reason_is_what_the_notebook_printed_not_the_line_that_prints_it():
    printed, traced = "oops-error: one GPU", '\x1b[0;31m---> 57\x1b[0m print(f"oops-error: {reason}", flush=True)'
    assert reason(f"{printed}\n{traced}\n") == "one GPU"
