"""Requests in plain words: the table itself, and what is drawn from it."""

import re
from collections import Counter
from random import Random

from stages.common.chat import SHELLS
from stages.common.danger import added_danger
from stages.generating.mistakes import Typist
from stages.generating.requests import Requests
from stages.generating.tables import SECTIONS, read_tables

TABLES = read_tables()
GROUPS = {group for groups in SECTIONS.values() for group in groups}
_SLOT = re.compile(r"\{([a-z][a-z_]*?)(\d?)\}")


def requests(shell: str, entries: list | None = None) -> Requests:
    typist = Typist.from_table(TABLES.mistakes)
    return Requests(entries or TABLES.requests, shell, TABLES.slots, TABLES.sampling["requests"], typist)


def slots(text: str) -> set[str]:
    return {match.group() for match in _SLOT.finditer(text) if match.group(1) in TABLES.slots}


def answers(entry: dict) -> list[str]:
    others = [text for texts in entry.get("accept", {}).values() for text in texts]
    return [*entry["answer"].values(), *others]


def test_every_wording_carries_all_that_the_answers_need():
    missing = [
        (ask, text)
        for entry in TABLES.requests
        for ask in entry["ask"]
        for text in answers(entry)
        if not slots(text) <= slots(ask)
    ]
    assert missing == []


def test_no_wording_means_two_things():
    counts = Counter(ask for entry in TABLES.requests for ask in entry["ask"])
    assert [ask for ask, count in counts.items() if count > 1] == []


def test_the_groups_are_those_of_the_shells():
    named = {group for entry in TABLES.requests for key in ("answer", "accept") for group in entry.get(key, {})}
    assert named <= GROUPS


def test_a_shell_gets_its_own_answer_before_the_common_one():
    entry = {"ask": ["set x"], "answer": {"posix": "export x=1", "fish": "set x 1"}}
    assert requests("fish", [entry]).draw("request", Random(1)).answer == "set x 1"
    assert requests("zsh", [entry]).draw("request", Random(1)).answer == "export x=1"


def test_windows_has_its_own_services_and_users():
    entry = {
        "ask": ["start {service} as {user}"],
        "answer": {"posix": "a {service} {user}", "cmd": "a {service} {user}"},
    }
    drawn = {
        shell: requests(shell, [entry]).draw("request", Random(3)).answer.split() for shell in ("bash", "cmd")
    }
    assert drawn["cmd"][1] in TABLES.slots["winservice"]
    assert drawn["cmd"][2] in TABLES.slots["winuser"]
    assert drawn["bash"][1] in TABLES.slots["service"]


def test_no_request_is_answered_with_a_sudo():
    assert [
        text for entry in TABLES.requests for text in answers(entry) if text.startswith(("sudo", "doas"))
    ] == []


def test_a_slot_has_one_value_in_a_request_and_two_slots_of_a_kind_have_two():
    entry = {"ask": ["copy {file} to {file2}"], "answer": {"posix": "cp {file} {file2}"}}
    for seed in range(50):
        drawn = requests("bash", [entry]).draw("request", Random(seed))
        first, second = drawn.answer.split()[1:]
        assert first != second
        assert first in drawn.asked
        assert second in drawn.asked


def test_a_typo_goes_into_a_word_and_never_into_a_value():
    entry = {"ask": ["display {file}"], "answer": {"posix": "cat {file}"}}
    for seed in range(50):
        drawn = requests("bash", [entry]).draw("omission", Random(seed))
        value = drawn.answer.split()[1]
        assert value in drawn.asked
        assert "display" not in drawn.asked


def test_no_answer_adds_danger_that_was_not_asked_for():
    found = []
    for shell in SHELLS:
        source = requests(shell)
        for seed in range(400):
            drawn = source.draw("request", Random(seed))
            found += [
                (shell, drawn.asked, answer)
                for answer in (drawn.answer, *drawn.accept)
                if added_danger(shell, drawn.asked, answer)
            ]
    assert found == []
