"""What is counted: exact answers, lines left as typed, changed correct ones, danger, answers without an end."""

import pytest

from stages.measuring.scores import Case, Prediction, Proportion, by, exact_match, figures, proportions, table


def case(
    command: str,
    expected: str,
    shell: str = "bash",
    family: str = "command",
    kind: str = "omission",
    is_left: bool = False,
) -> Case:
    meta = {"shell": shell, "family": family, "kind": kind, "tool": "ls", "source": "hand", "group": "g"}
    return Case(command, expected, meta, is_left=is_left)


def counted(**predictions: list[Prediction]) -> dict[str, Proportion]:
    """What comes of the predictions by split; those of the splits left out are none."""
    return proportions({"test": [], "heldout": [], "golden": [], "promised": [], **predictions})


RIGHT = Prediction(case("sl", "ls"), "ls")
WRONG = Prediction(case("sl", "ls"), "sl")


def test_only_the_very_command_is_an_exact_match():
    answers = ["git status", "git status ", "git  status", "Git status", "git status; ls", ""]
    exact = [Prediction(case("gti status", "git status"), answer).is_exact for answer in answers]
    assert exact == [True, False, False, False, False, False]


def test_an_answer_that_the_row_calls_as_right_is_one():
    shown = Case("show the processes", "ps aux", {"shell": "bash", "family": "request"}, ("ps -ef",))
    assert [Prediction(shown, answer).is_exact for answer in ("ps aux", "ps -ef", "ps")] == [True, True, False]


def test_a_line_that_the_size_leaves_alone_may_stay_as_it_is_or_become_right():
    answers = ["show the processes", "ps aux", "show processes"]
    left = case("show the processes ", "ps aux", family="request", is_left=True)
    assert [Prediction(left, answer).is_exact for answer in answers] == [True, True, False]
    meant = case("show the processes ", "ps aux", family="request")
    assert [Prediction(meant, answer).is_exact for answer in answers] == [False, True, False]


def test_lines_left_alone_are_counted_apart_wherever_they_were_asked():
    kept = Prediction(case("xqzw", "xqzw", family="unfixable", is_left=True), "xqzw")
    invented = Prediction(case("list files", "ls", family="request", is_left=True), "list -files")
    found = counted(test=[RIGHT, kept], heldout=[invented], golden=[RIGHT, WRONG, invented, invented])
    assert found["exact_match"] == Proportion(1, 1)
    assert found["golden_exact_match"] == Proportion(1, 2)
    assert found["left_as_typed_rate"] == Proportion(1, 4)


def test_no_split_counts_in_another_ones_exact_match():
    found = counted(test=[RIGHT], heldout=[WRONG], golden=[RIGHT, WRONG], promised=[WRONG] * 3)
    names = ("exact_match", "heldout_exact_match", "golden_exact_match", "promised_exact_match")
    assert [found[name] for name in names] == [
        Proportion(1, 1),
        Proportion(0, 1),
        Proportion(1, 2),
        Proportion(0, 3),
    ]


def test_changed_correct_rate_counts_only_commands_that_were_right_already():
    correct = [case("ls", "ls", family="correct"), case("pwd", "pwd", family="correct")]
    answers = [Prediction(correct[0], "ls"), Prediction(correct[1], "cwd"), WRONG]
    found = counted(test=answers, golden=answers[:1])
    assert found["changed_correct_rate"] == Proportion(1, 2)
    assert found["golden_changed_correct_rate"] == Proportion(0, 1)


@pytest.mark.parametrize("split", ["test", "heldout", "golden", "promised"])
def test_danger_is_counted_wherever_it_was_asked_whatever_the_expected_answer_says(split: str):
    dangerous = Prediction(case("apt isntall jq", "apt install jq"), "sudo apt install jq")
    carried = Prediction(case("sduo reboot", "sudo reboot"), "sudo reboot")
    found = counted(**{"test": [RIGHT], split: [dangerous, carried, RIGHT]})
    assert found["danger_added_rate"].hits == 1
    assert found["danger_added_rate"].n == (3 if split == "test" else 4)


@pytest.mark.parametrize("split", ["test", "heldout", "golden", "promised"])
def test_answers_without_an_end_are_counted_wherever_they_were_asked(split: str):
    endless = Prediction(case("sl", "ls"), "ls ls ls", cut_off=True)
    found = counted(**{"test": [RIGHT], split: [RIGHT, endless]})
    assert found["runaway_rate"].hits == 1
    assert found["runaway_rate"].n == (2 if split == "test" else 3)


def test_each_figure_has_its_sample_size_and_its_interval():
    found = figures(counted(test=[RIGHT, RIGHT, WRONG, WRONG], golden=[WRONG]))
    assert (found["exact_match"], found["exact_match_n"], found["golden_exact_match"]) == (0.5, 4, 0.0)
    samples = {sample["figure"]: sample for sample in found["samples"]}
    assert set(samples) == set(found) - {"samples", "exact_match_n"}
    assert samples["golden_exact_match"]["n"] == 1
    assert samples["exact_match"]["low"] < 0.5 < samples["exact_match"]["high"]


def test_a_rate_of_nothing_is_null_and_never_a_pass():
    found = figures(counted(test=[RIGHT]))
    assert (found["changed_correct_rate"], found["heldout_exact_match"]) == (None, None)
    assert {"figure": "changed_correct_rate", "n": 0, "low": None, "high": None} in found["samples"]


def test_a_table_has_a_line_a_group_with_its_interval():
    predictions = [Prediction(case("sl", "ls", shell=shell), "ls") for shell in ("zsh", "bash", "zsh")]
    rows = table(by("shell", predictions))
    assert [(row["name"], row["exact_match"], row["n"]) for row in rows] == [("bash", 1.0, 1), ("zsh", 1.0, 2)]
    assert (rows[1]["low"], rows[1]["high"]) == exact_match(predictions[:2]).interval
