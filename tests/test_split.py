"""The split into train, valid, test and held-out rows: by group, exact, and the same everywhere."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from stages.common.chat import system_prompt
from stages.validating.rows import Row, parse_line
from stages.validating.split import check_splits, split_rows

HERE = Path("x.jsonl")


def row(line: int, group: str | None, before="", after="", shell="bash", tool="git") -> Row:
    meta = {"tool": tool} if group is None else {"tool": tool, "group": group}
    name = f"branch_{line}"  # a name of its own, since a number would be masked
    return Row(HERE, line, "{}", meta, shell, before or f"git psuh {name}", after or f"git push {name}")


def grouped_rows(groups: int, largest: int = 3) -> list[Row]:
    rng = random.Random(5)
    sizes = [rng.randint(1, largest) for _ in range(groups)]
    owners = [group for group, size in enumerate(sizes) for _ in range(size)]
    return [row(line, f"g{owner}") for line, owner in enumerate(owners)]


def places(splits: dict[str, list[Row]]) -> dict[int, str]:
    return {each.line: name for name, rows in splits.items() for each in rows}


def test_shares_are_90_5_5_and_no_row_is_lost():
    rows = grouped_rows(2000)
    splits = split_rows(rows, 1, [])
    assert len(places(splits)) == len(rows)
    assert len(splits["test"]) == len(splits["valid"]) == round(0.05 * len(rows))
    assert not list(check_splits(HERE, splits))


def test_rows_of_a_group_stay_together():
    rows = grouped_rows(300, largest=9)
    where = places(split_rows(rows, 1, []))
    for group in {each.meta["group"] for each in rows}:
        assert len({where[each.line] for each in rows if each.meta["group"] == group}) == 1


def test_groups_that_ask_the_same_thing_stay_together():
    for seed in range(30):
        rows = [*grouped_rows(100), row(900, "a", "git psuh"), row(901, "b", "git  psuh"), row(902, "b", "x")]
        where = places(split_rows(rows, seed, []))
        assert where[900] == where[901] == where[902]


def test_groups_that_differ_in_a_path_or_a_number_alone_stay_together():
    for seed in range(30):
        twins = [row(900, "a", "tali -5 x.log", "tail -5 x.log"), row(901, "b", "tali -9 /y", "tail -9 /y")]
        where = places(split_rows([*grouped_rows(100), *twins], seed, []))
        assert where[900] == where[901]


def test_a_popular_group_does_not_fill_the_test():
    rows = [*grouped_rows(2000), *(row(line, "popular") for line in range(9000, 9060))]
    for seed in range(20):
        assert places(split_rows(rows, seed, []))[9000] == "train"


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_the_rows():
    rows = grouped_rows(500)
    shuffled = random.Random(2).sample(rows, len(rows))
    one, again, other = (split_rows(*args, []) for args in ((rows, 1), (shuffled, 1), (rows, 2)))
    assert [each.line for each in one["train"]] == [each.line for each in again["train"]]
    assert places(one) == places(again)
    assert places(one) != places(other)


def test_rows_are_shuffled():
    train = [each.line for each in split_rows(grouped_rows(500), 1, [])["train"]]
    assert train != sorted(train)


def test_more_rows_leave_most_groups_where_they_were():
    rows = grouped_rows(2000)
    extra = [row(line, f"new{line}") for line in range(9000, 9050)]
    before, after = places(split_rows(rows, 1, [])), places(split_rows([*rows, *extra], 1, []))
    moved = Counter(before[each.line] != after[each.line] for each in rows)
    assert moved[True] < 0.02 * len(rows)


def test_a_held_out_tool_is_trained_on_nowhere():
    rows = [
        *grouped_rows(200),
        row(900, "a", after="cargo build", tool="cargo"),
        row(901, "b", after="git pull && cargo build"),
        row(902, "c", after="sudo CARGO build", tool="sudo"),
        row(903, "d", after="brew install cargo", tool="brew"),
    ]
    for seed in range(20):
        where = places(split_rows(rows, seed, ["Cargo"]))
        assert [where[line] for line in (900, 901, 902)] == ["heldout"] * 3
        assert where[903] != "heldout"


def test_rows_that_cross_splits_are_found():
    splits = {
        "train": [row(1, "a"), row(2, "b", "git psuh"), row(5, "d", "cat 5 a.txtt", "cat 5 a.txt")],
        "valid": [row(3, "a")],
        "test": [row(4, "c", "git psuh")],
        "heldout": [row(6, "e", "cat 6 a.txtt", "cat 6 a.txt")],
    }
    found = [(each.line, each.message) for each in check_splits(HERE, splits) if each.line]
    assert [line for line, _ in found] == [3, 4, 6]
    assert "same group is in train" in found[0][1]
    assert "same typed line is in train" in found[1][1]
    assert "same skeleton is in train" in found[2][1]


def test_a_group_too_large_to_split_is_an_error():
    rows = [row(line, "one") for line in range(100)]
    assert [each for each in check_splits(HERE, split_rows(rows, 1, [])) if "too large" in each.message]


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_too_few_rows_for_a_split_are_an_error(rows: int):
    """Within the tolerance of the shares as they may be, training would find an empty file."""
    splits = split_rows([row(line, str(line)) for line in range(rows)], 1, [])
    empty = {each.message.split(" for ")[1].split(";")[0] for each in check_splits(HERE, splits) if not each.line}
    assert empty == {name for name in ("train", "valid", "test") if not splits[name]} != set()


def test_a_group_is_worked_out_from_the_line_without_its_particulars_and_the_mistake():
    def group(before, after, **said):
        roles = zip(("system", "user", "assistant"), (system_prompt("bash"), before, after), strict=True)
        messages = [{"role": role, "content": text} for role, text in roles]
        line = json.dumps({"messages": messages, "meta": {"shell": "bash", **said}})
        return parse_line(HERE, 1, line.encode()).meta["group"]

    assert group("git psuh a.txt", "git push a.txt") == group("git psuh src/b.md", "git push src/b.md")
    assert group("git psuh a.txt", "git push a.txt") != group("git pusj a.txt", "git push a.txt")
    assert group("git psuh a.txt", "git push a.txt") != group("git psuh -f a.txt", "git push -f a.txt")
    assert group("git psuh", "git push", group="own") == "own"
