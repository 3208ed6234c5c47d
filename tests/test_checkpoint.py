"""Checkpoints: a killed run goes on from the newest one that is whole."""

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from checkpoint import CheckpointError, Checkpoints, file_digests


@pytest.fixture
def said() -> list[str]:
    """The lines that a person would see."""
    return []


@pytest.fixture
def checkpoints(tmp_path: Path, said: list[str]) -> Checkpoints:
    """Those of a run that has saved the steps 1, 2 and 3."""
    made = Checkpoints(tmp_path, "key", "oops-1", said.append)
    for step in (1, 2, 3):
        made.save({"step": step, "adapter": torch.full((1000,), float(step))}, step / 10)
    return made


def test_the_newest_state_is_loaded_and_its_voucher_says_what_it_is(checkpoints: Checkpoints, said: list[str]):
    state = checkpoints.load()

    assert state is not None
    assert state["step"] == 3
    assert state["adapter"][0] == 3.0
    voucher = json.loads((checkpoints.directory / "checkpoint.json").read_text())
    digest = file_digests([checkpoints.directory / "checkpoint.pt"])["checkpoint.pt"]
    assert voucher == {"run_id": "oops-1", "key": "key", "progress": 0.3, "sha256": digest}
    assert said == []


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip_a_byte(folder / "checkpoint.pt"),
        lambda folder: (folder / "checkpoint.pt").write_bytes(b""),
        lambda folder: (folder / "checkpoint.json").write_text("{"),
        lambda folder: (folder / "checkpoint.json").write_text("[]"),
        lambda folder: (folder / "checkpoint.json").unlink(),
    ],
    ids=["a flipped bit", "an empty file", "half a voucher", "another voucher", "no voucher"],
)
def test_a_damaged_checkpoint_is_set_aside_by_name_and_the_one_before_is_loaded(
    checkpoints: Checkpoints, said: list[str], damage: Callable[[Path], object]
):
    damage(checkpoints.directory)

    state = checkpoints.load()

    assert state is not None
    assert state["step"] == 2
    assert (checkpoints.directory / "checkpoint.pt.damaged").is_file()
    [line] = said
    assert "checkpoint.pt.damaged" in line


def test_where_both_are_damaged_training_begins_anew(checkpoints: Checkpoints, said: list[str]):
    for name in ("checkpoint.pt", "before.pt"):
        flip_a_byte(checkpoints.directory / name)

    assert checkpoints.load() is None
    assert len(said) == 2
    checkpoints.save({"step": 1}, 0.1)
    assert checkpoints.load() == {"step": 1}


def test_a_checkpoint_of_another_run_is_set_aside(checkpoints: Checkpoints, said: list[str], tmp_path: Path):
    other = Checkpoints(tmp_path, "another", "")
    other.save({"step": 9}, 0.9)
    for name in ("checkpoint.pt", "checkpoint.json"):
        (other.directory / name).replace(checkpoints.directory / name)

    state = checkpoints.load()

    assert state is not None
    assert state["step"] == 2
    assert "it is of another run" in said[0]


def test_after_a_kill_between_the_state_and_its_voucher_the_one_before_is_loaded(
    checkpoints: Checkpoints, tmp_path: Path
):
    voucher = (checkpoints.directory / "checkpoint.json").read_text()
    checkpoints.save({"step": 4}, 0.4)
    (checkpoints.directory / "checkpoint.json").write_text(voucher)  # the new one was not yet written

    state = checkpoints.load()

    assert state is not None
    assert state["step"] == 3


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: what a full disk does to a writer, on any machine."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [0, 100_000])
def test_a_checkpoint_that_cannot_be_written_is_one_line_and_leaves_the_last_ones(
    checkpoints: Checkpoints, size: int
):
    with (
        files_of_at_most(size),
        pytest.raises(CheckpointError, match=r"key: no checkpoint can be written .*free some space") as raised,
    ):
        checkpoints.save({"step": 4, "adapter": torch.zeros(100_000)}, 0.4)

    assert "\n" not in str(raised.value)
    state = checkpoints.load()
    assert state is not None
    assert state["step"] == 3


def test_nothing_is_left_of_a_finished_run(checkpoints: Checkpoints, tmp_path: Path):
    checkpoints.remove()

    assert checkpoints.load() is None
    assert list(tmp_path.iterdir()) == []
