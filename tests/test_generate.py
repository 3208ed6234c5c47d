"""The generate stage: what a row is, what the file of rows is, and when it refuses."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import yaml

from stages.common.config import DataParams
from stages.common.danger import added_danger, danger_table, find_dangers
from stages.common.errors import PipelineError
from stages.common.golden import golden_cases
from stages.common.grammar import build_grammars
from stages.common.lines import annotate
from stages.generate import generate, quotas
from stages.generating.commands import Everyday, FromGrammar, Slots, Weighted, is_chained
from stages.generating.mistakes import SINGLE, TWO_OPERATIONS
from stages.generating.skeleton import group_key, mask, mistake
from stages.generating.sources import CommandPopularity, CorrectLines
from stages.generating.tables import everyday_lines, read_tables, read_yaml

TABLES = read_tables()
BASH, POWERSHELL, CMD = build_grammars(("bash", "powershell", "cmd"), TABLES.grammars).values()
PARAMS = DataParams(
    rows=2400,
    shells={"bash": 0.35, "zsh": 0.25, "powershell": 0.20, "cmd": 0.12, "fish": 0.05, "tcsh": 0.03},
    families={
        "command": 0.16,
        "subcommand": 0.15,
        "option": 0.17,
        "path": 0.07,
        "wrong_option": 0.10,
        "syntax": 0.06,
        "layout": 0.01,
        "chain": 0.08,
        "request": 0.06,
        "correct": 0.12,
        "unfixable": 0.02,
    },
    grammar_share=0.25,
    max_chars=100,
    heldout_tools=["rsync", "cargo", "robocopy"],
)


@pytest.fixture(scope="module")
def rows():
    return list(generate(TABLES, PARAMS, seed=7))


def typed(row):
    return row["messages"][1]["content"]


def answer(row):
    return row["messages"][2]["content"]


def of_family(rows, *families):
    return [row for row in rows if row["meta"]["family"] in families]


def test_the_shares_are_exact(rows):
    assert len(rows) == PARAMS.rows
    for key, shares in (("shell", PARAMS.shells), ("family", PARAMS.families)):
        counts = Counter(row["meta"][key] for row in rows)
        for name, share in shares.items():
            assert abs(counts[name] / len(rows) - share) < 0.005


def test_quotas_add_up_whatever_the_size():
    for total in (1, 7, 999, 24000):
        assert sum(quotas(total, PARAMS.shells, PARAMS.families).values()) == total


def test_no_line_is_typed_twice_in_a_shell(rows):
    assert max(Counter((row["meta"]["shell"], typed(row)) for row in rows).values()) == 1


def test_no_row_is_typed_as_a_golden_case_of_any_shell_is(rows):
    golden = {case.typed for case in golden_cases()}
    assert [row for row in rows if typed(row) in golden] == []


def test_only_correct_and_unfixable_lines_stay_as_they_are(rows):
    for row in rows:
        family = row["meta"]["family"]
        assert (typed(row) == answer(row)) == (family in ("correct", "unfixable")), row
        assert (family == "correct") == (row["meta"]["kind"] == "none"), row


def test_no_correction_adds_danger(rows):
    assert [row for row in rows if added_danger(row["meta"]["shell"], typed(row), answer(row))] == []


def test_no_answer_puts_sudo_before_a_line(rows):
    """A small model learns from such rows to put it before others."""
    as_root = [row for row in rows if answer(row).startswith("sudo ")]
    assert as_root
    for row in as_root:
        assert not typed(row).startswith(answer(row).removeprefix("sudo ")), row


def test_lines_are_short_and_tidy(rows):
    for row in rows:
        for line in (typed(row), answer(row)):
            assert 0 < len(line) <= PARAMS.max_chars
            assert line == line.strip()
            assert "\n" not in line


def test_no_slot_is_left_unfilled(rows):
    slots = {"{" + name + "}" for name in TABLES.slots}
    assert [row for row in rows if any(slot in answer(row) for slot in slots)] == []


def test_a_mistyped_command_is_no_command_and_no_usual_alias(rows):
    no_typos = {*BASH.commands, *TABLES.mistakes["shell_aliases"]}
    for row in of_family(rows, "command"):
        if row["meta"]["shell"] == "bash" and row["meta"]["kind"] in SINGLE:
            wrong, right = mistake(typed(row), answer(row))
            assert wrong not in no_typos, row
            assert right in BASH.commands or "-" in right or "." in right, row


def test_a_shell_is_given_no_command_of_another_shell_alone(rows):
    fish_only = {"string", "funcsave", "funced", "abbr", "fish_add_path", "set_color", "math"}
    elsewhere = [row for row in rows if row["meta"]["shell"] != "fish"]
    assert [row for row in elsewhere if row["meta"]["tool"] in fish_only] == []


def test_the_mistakes_have_the_shares_of_the_table(rows):
    weights = TABLES.mistakes["weights"]
    typos = of_family(rows, "command", "subcommand", "option", "path")
    counts = Counter(row["meta"]["kind"] for row in typos)
    for kind in (*SINGLE, TWO_OPERATIONS):
        assert abs(counts[kind] / len(typos) - weights[kind] / sum(weights.values())) < 0.035, kind


def test_a_few_tools_make_up_half_of_the_lines_and_hundreds_the_rest(rows):
    tools = Counter(row["meta"]["tool"] for row in rows if row["meta"]["shell"] == "bash")
    top = sum(count for _, count in tools.most_common(10)) / tools.total()

    assert 0.4 < top < 0.7
    assert tools["git"] == max(tools.values())
    assert len(tools) > 150


def test_tools_kept_out_of_training_are_few_and_named(rows):
    names = {name.lower() for name in PARAMS.heldout_tools}
    heldout = [row for row in rows if row["meta"]["tool"].lower() in names]
    assert 0.01 < len(heldout) / len(rows) < 0.05
    grammars = {"powershell": POWERSHELL, "cmd": CMD}
    for row in rows:
        grammar = grammars.get(row["meta"]["shell"], BASH)
        used = {word.text.lower() for word in annotate(answer(row), grammar) if word.role == "command"}
        assert not used & names or row in heldout


def test_the_same_seed_gives_the_same_bytes_whatever_the_hash_seed():
    script = (
        "import json, sys; sys.path.insert(0, '.')\n"
        "from tests.test_generate import PARAMS, TABLES, generate\n"
        "small = PARAMS.model_copy(update={'rows': 300})\n"
        "print('\\n'.join(map(json.dumps, generate(TABLES, small, seed=1))))"
    )
    digests = set()
    for hash_seed in ("0", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        )
        digests.add(hashlib.sha256(done.stdout).hexdigest())
    assert len(digests) == 1


def test_another_seed_gives_other_rows(rows):
    small = PARAMS.model_copy(update={"rows": 60})
    assert list(generate(TABLES, small, seed=1)) != list(generate(TABLES, small, seed=2))


def test_a_family_that_cannot_fill_its_quota_is_an_error():
    poor = replace(TABLES, usage={"posix": {"pwd": ["pwd"]}})
    params = PARAMS.model_copy(update={"rows": 10, "shells": {"bash": 1.0}, "families": {"subcommand": 1.0}})
    params = params.model_copy(update={"grammar_share": 0.0})
    with pytest.raises(PipelineError, match=r"family subcommand in bash: only 0 of 10 rows"):
        list(generate(poor, params, seed=1))


def test_a_malformed_table_is_named(tmp_path):
    path = tmp_path / "usage.yaml"
    path.write_text("git: [a, b\n")
    with pytest.raises(PipelineError, match=r"usage.yaml:\d+: not YAML"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("line", "roles"),
    [
        ("git commit -m 'a b' --amend", "command subcommand option value option"),
        ("sudo systemctl restart nginx", "command command subcommand value"),
        ("cat app.log | grep -i error > out.txt", "command value operator command option value operator value"),
        ("ls -la src && cd ..", "command flags value operator command value"),
        ("FOO=1 make", "value command"),
        ("sudo -u postgres psql -l", "command option value command option"),
        ("xargs -n 1 git add", "command option value command subcommand"),
        ("xargs -0 rm", "command value command"),
        ("sudo -- git push", "command option command subcommand"),
        ("env NODE_ENV=test npm install", "command value command subcommand"),
        ("env -u HOME git pull", "command option value command subcommand"),
        ("pkexec systemctl restart nginx", "command command subcommand value"),
        ("doas -u www git pull", "command option value command subcommand"),
        ("time git pull", "command command subcommand"),
        ("nohup git pull > out.txt &", "command command subcommand operator value operator"),
        ("timeout 10s git pull", "command value command subcommand"),
        ("timeout -s KILL 10s git pull", "command option value value command subcommand"),
        ("FOO=1 nice -n 5 make", "value command option value command"),
        ("while true; do git pull; done", "command command operator command command subcommand operator command"),
        ("if ! git pull", "command command command subcommand"),
    ],
)
def test_words_of_a_line_have_roles(line, roles):
    assert " ".join(word.role for word in annotate(line, BASH)) == roles


def test_a_slot_named_twice_gets_two_values_and_a_repeated_one_the_same():
    slots = Slots({"file": ["a", "b", "c"]})
    lines = [slots.fill("cp {file} {file} && mv {=file} {=file}.bak", Random(number)) for number in range(30)]
    for line in lines:
        _, first, second, _, _, again, backup = line.split()
        assert first != second == again
        assert backup == f"{again}.bak"
    assert len(set(lines)) > 3


@pytest.mark.parametrize("template", ["cp {=file} {file}", "cp {file} {=dir}"])
def test_a_repeated_slot_without_its_slot_before_it_is_named(template: str):
    with pytest.raises(PipelineError, match=r"repeats nothing; put \{\w+\} before it"):
        Slots({"file": ["a"], "dir": ["b"]}).fill(template, Random(0))


def test_a_template_can_be_made_rare():
    lines = Everyday.alike(["rm {file}", "ls"], Slots({"file": ["a"]})).scaled(
        lambda line: 0.01 if "rm" in line else 1
    )
    drawn = Counter(lines.draw(Random(number)).line for number in range(2000))
    assert drawn["ls"] > 1900
    assert 0 < drawn["rm a"] < 60


def everyday_rows(**sampling: float) -> list[dict]:
    """Rows of the families that draw everyday lines, with these values in data/sampling.yaml."""
    tables = replace(TABLES, sampling={**TABLES.sampling, **sampling})
    return of_family(list(generate(tables, PARAMS, seed=7)), "command", "subcommand", "option", "chain")


def test_dangerous_lines_are_drawn_as_rarely_as_the_table_says():
    def dangerous(danger_share: float) -> int:
        rows = everyday_rows(danger_share=danger_share)
        return sum(bool(find_dangers(danger_table(row["meta"]["shell"]), answer(row))) for row in rows)

    assert dangerous(0.15) < dangerous(1.0) / 2


def test_lines_that_repeat_a_value_are_drawn_as_often_as_the_table_says():
    """Of a model that had seen few of them, some answers went on with `-OutFile setup.msi -OutFile setup.msi`."""

    def repeating(factor: float) -> int:
        lines = [answer(row).split() for row in everyday_rows(repeating_factor=factor)]
        return sum(any(len(end) > 4 and end in word for word in line) for *line, end in lines)

    assert repeating(20.0) > 2 * repeating(0.01)


def grammar_lines(
    never: list[str], subcommand: str = "log", bare: tuple[str, ...] = ("", "--oneline")
) -> list[str]:
    """Lines of one subcommand of git drawn from the grammar, `--oneline` far oftener than the others.

    `bare`: its options without which, or with which alone, people give no argument.
    """
    table, counts = {**TABLES.sampling, "never_drawn": never}, Counter({("git", subcommand, "--oneline"): 1000})
    places = {("git", subcommand, option) for option in bare}
    weights = {"git": {subcommand: 1.0}}
    lines = FromGrammar(BASH, {"git": 1.0}, weights, Slots(TABLES.slots), table, counts, places, {})
    return [draw.line for number in range(100) if (draw := lines.draw(Random(number)))]


def test_an_option_that_is_never_to_be_drawn_stands_in_no_line_of_the_grammar():
    assert any("--oneline" in line for line in grammar_lines([]))
    assert not any("--oneline" in line for line in grammar_lines(["--oneline"]))


def test_what_takes_no_argument_and_nobody_types_without_one_is_not_drawn():
    assert not BASH.command("git").subcommands["gc"].arguments
    assert grammar_lines([], "gc", ("",))
    assert not grammar_lines([], "gc", ())


def test_nothing_stands_behind_an_argument_that_is_left_out():
    """`git pull topic` would take the branch for the name of a remote."""
    words = [set(line.split()) for line in grammar_lines([], "pull", ("",))]
    remotes, branches = set(TABLES.slots["remote"]), set(TABLES.slots["branch"])
    assert any(line & branches for line in words)
    assert [line for line in words if line & branches and not line & remotes] == []


def drawn_from_grammar(start: str) -> set[str]:
    """Lines of bash drawn from the grammar that start so."""
    params = PARAMS.model_copy(update={"grammar_share": 1.0})
    lines = CorrectLines(BASH, CommandPopularity(BASH, TABLES), TABLES, params, lambda *_: True)
    draws = [lines.draw("correct", "none", Random(number)) for number in range(6000)]
    return {draw.line for draw in draws if draw and draw.line.startswith(start) and not is_chained(draw.line)}


def test_an_argument_that_everyday_lines_always_have_is_drawn_though_the_grammar_calls_it_optional():
    restored = drawn_from_grammar("git restore")
    assert restored
    assert [line for line in restored if all(word.startswith("-") for word in line.split()[2:])] == []
    assert "git status" in drawn_from_grammar("git status")


def test_two_grammars_of_one_command_do_not_ask_for_its_argument_twice():
    made = drawn_from_grammar("mkdir ")
    assert made
    assert [line for line in made if len([word for word in line.split() if not word.startswith("-")]) > 2] == []


def test_powershell_ignores_case_and_keeps_script_blocks_whole():
    words = annotate("get-process | Where-Object { $_.CPU -gt 10 }", POWERSHELL)
    assert [(word.role, word.tool) for word in words] == [
        ("command", "Get-Process"),
        ("operator", ""),
        ("command", "Where-Object"),
        ("value", "Where-Object"),
    ]


def test_cmd_knows_switches():
    assert [word.role for word in annotate("dir /s /b C:\\Temp", CMD)] == ["command", "option", "option", "value"]


def masked(line: str) -> str:
    return mask(annotate(line, BASH), BASH)


def key(typed: str, answer: str) -> str:
    return group_key(typed, answer, annotate(answer, BASH), BASH)


def test_masking_keeps_what_the_tool_defines_and_hides_what_the_user_chose():
    assert masked('git commit -m "wip"') == "git commit -m <text>"
    assert masked("head -n 20 src/app.py") == "head -n <number> <path>"
    assert masked("docker run --name=web nginx") == "docker run --name=<name> <name>"


def test_the_mistake_is_the_component_that_differs():
    assert mistake("git psuh origin", "git push origin") == ("psuh", "push")
    assert mistake("cat /etc/ngnix/nginx.conf", "cat /etc/nginx/nginx.conf") == ("ngnix", "nginx")
    assert mistake("cd..", "cd ..") == ("", " ")
    assert mistake("ls", "ls") == ("", "")


def test_a_group_is_the_line_without_its_names_and_the_mistake():
    found = key("git add amin.py", "git add main.py")
    assert key("gti add a.py", "git add a.py") == key("gti add b.md", "git add b.md")
    assert key("gti add a.py", "git add a.py") != key("igt add a.py", "git add a.py")
    assert key("gti add a.py", "git add a.py") != key("gti rm a.py", "git rm a.py")
    assert len(found) == 12
    assert int(found, 16)


def test_a_weighted_draw_is_the_one_of_the_standard_library():
    weights = {"git": 5.0, "ls": 2.5, "never": 0.0, "tar": 0.1}
    ours, theirs = Random(7), Random(7)
    drawn = [Weighted(weights).draw(ours) for _ in range(500)]
    assert drawn == theirs.choices(list(weights), weights=list(weights.values()), k=500)
    assert set(drawn) == {"git", "ls", "tar"}


def test_a_heldout_tool_is_in_no_row_of_another_line():
    """`grep` stands in many a chain of other tools; it comes no oftener than held-out tools are to come."""
    params = PARAMS.model_copy(update={"heldout_tools": ["grep"], "rows": 1200, "shells": {"bash": 1.0}})
    chains = of_family(generate(TABLES, params, seed=7), "chain")
    runs_it = [row for row in chains if any(word.text == "grep" for word in annotate(answer(row), BASH))]
    assert len(runs_it) / len(chains) < 3 * TABLES.sampling["heldout_share"]


def test_the_tools_kept_out_of_training_are_many_and_hardly_typed() -> None:
    """The released model knows what people type: none of these is among the commands that weigh anything."""
    shipped = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["data"]["heldout_tools"]
    assert len(shipped) >= 8
    weights = {tool: entry["w"] for group in TABLES.popularity.values() for tool, entry in group.items()}
    assert {tool: weights[tool] for tool in shipped if weights[tool] > 2} == {}
    promised = {"git", "docker", "npm", "cargo", "python", "pip", "kubectl", "make", "grep", "ls", "cat", "echo"}
    assert promised.isdisjoint(shipped)
    for shell in PARAMS.shells:
        assert set(shipped) & everyday_lines(TABLES, shell).keys(), shell


def test_a_short_dangerous_word_is_corrected_only_where_its_letters_and_no_other_are_there(rows) -> None:
    """`rn -r build`, `r4m -r build` and `rmb uild` may mean anything."""
    params = PARAMS.model_copy(
        update={"families": {"command": 1.0}, "rows": 6000, "shells": {"bash": 0.5, "cmd": 0.5}}
    )
    found = 0
    for row in (*rows, *generate(TABLES, params, seed=5)):
        for word in ("rm", "del", "rd"):
            if answer(row).split()[0] == word and row["meta"]["family"] == "command":
                found += typed(row).split()[0] != word
                assert set(typed(row).split()[0].lower()) == set(word), row
    assert found


def test_the_share_of_unfixable_lines_stays_as_typed(rows) -> None:
    found = of_family(rows, "unfixable")
    assert {row["meta"]["kind"] for row in found} == {"gibberish", "unknown_program"}
    assert {row["meta"]["shell"] for row in found} == set(PARAMS.shells)
    assert all(typed(row) == answer(row) for row in found)


def test_unfixable_lines_of_one_template_share_a_group() -> None:
    """So that a model is asked for sentences that it has never seen, not for other names in those that it has."""
    params = PARAMS.model_copy(update={"families": {"unfixable": 1.0}, "rows": 3000, "shells": {"bash": 1.0}})
    found = [row for row in generate(TABLES, params, seed=7) if typed(row).startswith("between ")]
    assert len(found) > 1
    assert len({row["meta"]["group"] for row in found}) == 1
