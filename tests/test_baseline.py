"""Which commit the gate compares with: the rule, before and after a commit, on branches, in clones cut short."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.measuring.baseline import AUTO, IncomparableError, find_commit

FILES = [Path("metrics/135m/correct/eval.json"), Path("metrics/135m/correct/fidelity.json")]


def git(*arguments: str) -> str:
    settings = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", *settings, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def make(figures: str) -> None:
    """Figures in the work tree."""
    for path in FILES:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(figures)


def commit(figures: str | None) -> str:
    """A commit with these figures, or with a change of something else."""
    if figures is None:
        with Path("README").open("a") as file:
            file.write("more\n")
    else:
        make(figures)
    git("add", "-A")
    git("commit", "-qm", "x")
    return git("rev-parse", "HEAD")


def baseline() -> str | None:
    return find_commit(AUTO, FILES)


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The main branch of the example in stages/measuring/baseline.py."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    git("init", "-q", "-b", "main")
    return {name: commit(figures) for name, figures in zip("ABCD", ("1", None, "2", None), strict=True)}


def test_committed_figures_are_compared_with_the_ones_before_them(history: dict[str, str]):
    assert baseline() == history["A"]


def test_new_figures_on_main_have_the_same_baseline_before_and_after_their_commit(history: dict[str, str]):
    make("3")
    assert baseline() == history["C"]
    commit("3")
    assert baseline() == history["C"]
    commit(None)
    assert baseline() == history["C"]


def test_a_branch_is_compared_with_its_merge_base_however_often_it_commits_figures(history: dict[str, str]):
    git("checkout", "-qb", "feature")
    for figures in ("3", "4"):
        make(figures)
        assert baseline() == history["C"]
        commit(figures)
        assert baseline() == history["C"]


def test_a_branch_without_figures_of_its_own_is_compared_as_main_is(history: dict[str, str]):
    git("checkout", "-qb", "feature")
    commit(None)
    assert baseline() == history["A"]


def test_what_main_gets_later_counts_once_it_is_merged(history: dict[str, str]):
    git("checkout", "-qb", "feature")
    commit("3")
    git("checkout", "-q", "main")
    later = commit("9")
    git("checkout", "-q", "feature")
    assert baseline() == history["C"]
    git("merge", "-q", "-s", "ours", "-m", "merge", "main")
    assert baseline() == later


def test_a_merged_branch_keeps_its_baseline(history: dict[str, str]):
    git("checkout", "-qb", "feature")
    commit("3")
    commit("4")
    git("checkout", "-q", "main")
    commit(None)
    git("merge", "-q", "--no-ff", "-m", "merge", "feature")
    assert baseline() == history["C"]


def test_a_pull_requests_detached_merge_commit_is_compared_with_origin(history: dict[str, str]):
    git("checkout", "-qb", "feature")
    commit("3")
    git("checkout", "-q", "--detach", "main")
    git("merge", "-q", "--no-ff", "-m", "merge", "feature")
    git("update-ref", "refs/remotes/origin/main", "main")
    git("branch", "-qD", "main", "feature")
    assert baseline() == history["C"]


def test_a_main_branch_may_be_called_master(history: dict[str, str]):
    git("branch", "-qm", "master")
    assert baseline() == history["A"]


def test_figures_of_another_size_or_task_are_no_baseline(history: dict[str, str]):
    assert find_commit(AUTO, [Path("metrics/tiny/wit/eval.json")]) is None


def test_the_first_figures_have_no_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    git("init", "-q", "-b", "main")
    make("1")
    assert baseline() is None
    commit("1")
    assert baseline() is None


def test_a_revision_of_the_users_is_taken_as_it_is(history: dict[str, str]):
    git("tag", "v1", history["B"])
    assert find_commit("v1", FILES) == history["B"]


def test_a_shallow_clone_compares_with_what_it_has_or_says_how_to_get_more(
    history: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    git("clone", "-q", "--depth", "1", Path.cwd().as_uri(), str(tmp_path / "shallow"))
    monkeypatch.chdir(tmp_path / "shallow")
    with pytest.raises(IncomparableError, match="git fetch --unshallow"):
        baseline()
    make("3")
    assert baseline() == history["D"]
    git("fetch", "-q", "--unshallow")
    assert baseline() == history["C"]


def test_a_main_that_is_behind_that_of_origin_does_not_count(history: dict[str, str], tmp_path: Path):
    git("clone", "-q", str(Path.cwd()), str(tmp_path / "clone"))
    os.chdir(tmp_path / "clone")  # undone by the fixture
    git("checkout", "-qb", "feature")
    git("branch", "-qf", "main", history["A"])
    make("3")
    assert baseline() == history["C"]


def without_repository() -> None:
    subprocess.run(["rm", "-r", ".git"], check=True)


def without_main() -> None:
    git("branch", "-qm", "trunk")


def without_common_history() -> None:
    git("checkout", "-q", "--orphan", "other")
    commit("1")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_repository, "no git repository; get the project with `git clone`"),
        (without_main, "no branch main.* run `git fetch origin main:main`, or set gate.baseline"),
        (without_common_history, "no common history with main; merge it, or set gate.baseline"),
    ],
)
def test_a_baseline_that_cannot_be_found_says_what_to_do(
    history: dict[str, str], spoil: Callable[[], None], message: str
):
    spoil()
    with pytest.raises(IncomparableError, match=message):
        baseline()


def test_an_unknown_revision_is_named(history: dict[str, str]):
    with pytest.raises(IncomparableError, match=r"gate\.baseline: git knows no 'v9'"):
        find_commit("v9", FILES)


def test_an_experiment_in_a_folder_of_its_own_asks_the_repository_that_it_belongs_to(
    history: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = Path.cwd()
    git("clone", "-q", "--no-tags", str(root), str(tmp_path / "experiment"))
    monkeypatch.chdir(tmp_path / "experiment")
    git("checkout", "-q", "--detach")
    git("remote", "remove", "origin")
    git("branch", "-qD", "main")
    make("3")
    monkeypatch.setitem(os.environ, "DVC_ROOT", str(root))
    assert baseline() == history["C"]
