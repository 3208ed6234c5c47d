"""What the validate stage refuses, how it says so, and what it leaves behind."""

import json
import os
import shutil
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from stages.common.chat import ToolResult, system_prompt
from stages.validating import judging
from stages.validating.collection import (
    check_operators,
    check_repetition,
    check_shares,
    check_size,
    exact_match_ceiling,
    find_contradictions,
    find_duplicates,
)
from stages.validating.judging import read_and_judge
from stages.validating.limits import limits
from stages.validating.report import WORST_FIRST
from stages.validating.rows import Row
from stages.validating.rules import ROW_RULES

REPOSITORY = Path(__file__).parent.parent
PARAMS = {
    "model_size": "tiny",
    "task": "correct",
    "seed": 7,
    "data": {
        "rows": 200,
        "shells": {"bash": 0.5, "zsh": 0.5, "powershell": 0, "cmd": 0, "fish": 0, "tcsh": 0},
        "families": {"subcommand": 0.8, "correct": 0.2},
        "grammar_share": 0.5,
        "max_chars": 60,
        "heldout_tools": ["helm"],
    },
}


def content(shell="bash", before="git psuh", after="git push", **meta):
    unchanged = before == after
    said = {
        "shell": shell,
        "family": "correct" if unchanged else "subcommand",
        "kind": "none" if unchanged else "transposition",
        "tool": (after.split() or ["none"])[0],
        "source": "hand",
        "group": f"{before}>{after}",
        **meta,
    }
    return {
        "messages": [
            {"role": "system", "content": system_prompt(shell)},
            {"role": "user", "content": before},
            {"role": "assistant", "content": after},
        ],
        "meta": said,
    }


def unfixable(line: str, kind: str = "gibberish", shell: str = "bash") -> dict:
    return content(shell, line, line, family="unfixable", kind=kind, tool=line.split()[0])


def write(path: Path, rows: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def broken(tmp_path: Path, row, max_chars: int = 60) -> list[tuple[str, str]]:
    """The rules that one row breaks, with the messages."""
    _, findings = read_and_judge([write(tmp_path / "rows.jsonl", [row])], max_chars)
    return [(finding.rule, finding.message) for finding in findings]


GOOD = [
    content(),
    content(before="git status", after="git status"),
    content(before="docker ps --format {{.Names}}", after="docker ps --format {{.Names}}"),
    content(before="awk '{print $1}' a.txt", after="awk '{print $1}' a.txt"),
    content(before="cp a.{txt,md} /tmp", after="cp a.{txt,md} /tmp"),
    content(before="find . -name '*.py' -exec wc -l {} +", after="find . -name '*.py' -exec wc -l {} +"),
    content(before="grpe TODO a.txt", after="grep TODO a.txt"),
    content(before="LANG=C sotr a.txt", after="LANG=C sort a.txt", tool="sort"),
    content(before="./bin/run", after="./bin/run"),
    content(before="git lgo HEAD@{u}", after="git log HEAD@{u}"),
    content(before="echo ${HOME}", after="echo ${HOME}"),
    content(before="head -n 20/etc/hosts", after="head -n 20 /etc/hosts", kind="missing_space"),
    content(before="cat /ect/hosts", after="cat /etc/hosts"),
    content(before="ls src / main", after="ls src/main", kind="shifted_space"),
    content(before="tail -n20 app.log", after="tail -n 20 app.log", kind="missing_space"),
    content(before="yarn tets", after="yarn test"),
    content(before="git comit -m status", after="git commit -m status"),
    content("powershell", "car a.txt", "cat a.txt", kind="substitution_adjacent"),
    content("powershell", "gps | % {$_.Name}", "gps | % {$_.Name}"),
    content("powershell", "Get-Conten C:/logs/a.txt", "Get-Content C:\\logs\\a.txt"),
    content("powershell", "cd -", "cd -"),
    content("powershell", "Set-PSReadLineOption -BellStyle None", "Set-PSReadLineOption -BellStyle None"),
    content("zsh", "zstyle '*' list 'm:{a-z}={A-Z}'", "zstyle '*' list 'm:{a-z}={A-Z}'"),
    content("cmd", "dri /s C:\\logs", "dir /s C:\\logs"),
    content("zsh", "ls **/*.py(.)", "ls **/*.py(.)"),
    content("fish", "sudp reboot", "sudo reboot"),
    unfixable("asdkjh qwe"),
    unfixable("can paul come later"),
    unfixable('{"total": 7} && } |'),
    unfixable("frobnoctl sync --all", kind="unknown_program"),
]


@pytest.mark.parametrize("row", GOOD, ids=lambda row: row["messages"][1]["content"])
def test_a_good_row_breaks_no_rule(tmp_path, row):
    assert broken(tmp_path, row) == []


def edited(change) -> dict:
    row = content()
    change(row)
    return row


BAD = [
    ("utf-8", "byte", b'{"messages": "\xff"}'),
    ("utf-8", "surrogate", b'{"messages": "\\ud800"}'),
    ("json", "column", b'{"messages": ['),
    ("json", "column", b""),
    ("schema", "braces", b"[1, 2]"),
    ("schema", "list of three", {"messages": []}),
    ("schema", "role", edited(lambda row: row["messages"].reverse())),
    ("schema", "not text", edited(lambda row: row["messages"][1].update(content=None))),
    ("schema", "role` and `content", edited(lambda row: row["messages"][2].update(name="x"))),
    ("schema", "system text", edited(lambda row: row["messages"][0].update(content="You correct bash."))),
    ("schema", "empty", content(after=" ")),
    ("schema", "blank", content(before="git psuh ")),
    ("schema", "control character", content(before="git\tpsuh")),
    ("schema", "control character", content(after="git push\nls")),
    ("schema", "NFC", content(before="cat e\u0301.txtt", after="cat \u00e9.txt")),
    ("schema", "61 characters", content(before="git psuh " + "x" * 52, after="git push " + "x" * 51)),
    ("meta", "no `meta`", {"messages": content()["messages"]}),
    ("meta", "group", content(group="")),
    ("meta", "kind", content(kind=["transposition"])),
    ("meta", "color", content(color="red")),
    ("meta", "meta.shell", edited(lambda row: row["meta"].update(shell="zsh"))),
    ("meta", "family", content(family="guess")),
    ("meta", "kind", content(kind="magic")),
    ("meta", "does not go with", content(kind="none")),
    ("meta", "no command", content(tool="svn")),
    ("null", "nothing is corrected", content(before="git push", kind="omission", family="subcommand")),
    ("null", "changed", content(family="correct", kind="none")),
    ("null", "changed", content(before="frobnoctl", family="unfixable", kind="unknown_program")),
    ("meta", "does not go with", unfixable("frobnoctl sync", kind="none")),
    ("meta", "does not go with", content(kind="gibberish")),
    ("fixable", "git", unfixable("gti status", kind="unknown_program")),
    ("fixable", "kubectl", unfixable("kubelct,", kind="gibberish")),
    ("fixable", "get-process", unfixable("Get-Prcess -Id 7", kind="unknown_program", shell="powershell")),
    ("fixable", "can may be meant as cal", unfixable("can do it", kind="gibberish")),
    ("fixable", "find", unfixable("find out where they are", kind="gibberish")),
    ("syntax", "no valid bash", unfixable("frobnoctl sync |", kind="unknown_program")),
    ("danger", "sudo", content(before="apt update", after="sudo apt update", tool="apt")),
    ("leftover", "{{", content("powershell", "gps | ? {{$_.CPU}}", "gps | ? {{$_.CPU}}")),
    ("leftover", "{{", content(before="awk '{{print}}' a.txt", after="awk '{{print}}' a.txt")),
    ("leftover", "{branch}", content(before="git psuh {branch}", after="git push {branch}")),
    ("leftover", "<branch>", content("fish", "git psuh <branch>", "git push <branch>")),
    ("leftover", "TODO", content(before="git psuh TODO", after="git push TODO")),
    ("leftover", "double_space", content(before="git  psuh")),
    ("mistyped", "the command cat", content(before="cat a.txt", after="cut a.txt", kind="substitution_adjacent")),
    ("mistyped", "the command gci", content("powershell", "gci a", "gcm a", kind="substitution_other")),
    ("mistyped", "the subcommand git pull", content(before="git pull", kind="two_operations")),
    (
        "mistyped",
        "the subcommand docker rm",
        content(before="ls; docker rm a", after="ls; docker rmi a", tool="ls"),
    ),
    ("mistyped", "the option git --date", content(before="git log --date=iso", after="git log --data=iso")),
    ("foreign", "'export'", content("tcsh", "exprot EDITOR=vim", "export EDITOR=vim", tool="export")),
    ("foreign", "'2>'", content("tcsh", "sl 2> /dev/null", "ls 2> /dev/null", tool="ls")),
    ("foreign", "'$('", content("tcsh", "ehco $(date)", "echo $(date)", tool="echo")),
    ("foreign", "'export EDITOR='", content("fish", "exprot EDITOR=vim", "export EDITOR=vim", tool="export")),
    ("foreign", "'grep'", content("cmd", "grpe foo a.txt", "grep foo a.txt", tool="grep")),
    ("foreign", "'| grep'", content("powershell", "gsp | grep a", "gps | grep a", tool="gps")),
    ("foreign", "'%PATH%'", content(before="ehco %PATH%", after="echo %PATH%", tool="echo")),
    ("form", "no transposition", content(before="gitpush", after="git push")),
    ("form", "no transposition", content(before="cat Notes.txt", after="cat notes.txt", tool="cat")),
    ("invented", "https://", content(before="git clone", after="git clone https://example.com/a.git")),
    ("invented", "/opt/app", content(before="mkdri", after="mkdir /opt/app")),
    ("invented", "5", content(before="head -n", after="head -n 5")),
    ("invented", "'x y'", content(before="git commti -m", after="git commit -m 'x y'")),
    ("invented", "8080", content(before="docker rnu --port=", after="docker run --port=8080")),
    ("syntax", "bash", content(before="ehco (a", after="echo (a")),
    ("syntax", "powershell", content("powershell", "gps | ? { $_.CPU", "gps | ? { $_.CPU")),
]


@pytest.mark.parametrize(("rule", "message", "row"), BAD, ids=lambda value: str(value)[:24])
def test_a_bad_row_breaks_the_rule_that_names_its_fault(tmp_path, rule, message, row):
    found = broken(tmp_path, row)
    assert [each for each in found if each[0] == rule and message in each[1]], found


def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    file = write(
        tmp_path / "rows.jsonl", [content(before=f"git psuh {n}", after=f"git push {n}") for n in range(900)]
    )
    seen, most = [], 0
    read = judging.stretches

    def watched(files):
        nonlocal most
        for stretch in read(files):
            seen.append(weakref.ref(stretch))
            most = max(most, sum(ref() is not None for ref in seen))
            yield stretch
            del stretch

    monkeypatch.setattr(judging, "STRETCH", 10)
    monkeypatch.setattr(judging, "stretches", watched)
    rows, findings = read_and_judge([file], 60)
    assert [row.line for row in rows] == list(range(1, 901))
    assert not findings
    assert len(seen) == 90
    assert most <= 8 * os.cpu_count()


def rows_of(*contents) -> list[Row]:
    return [
        Row(
            Path("x.jsonl"),
            line,
            "{}",
            each["meta"],
            each["meta"]["shell"],
            *(m["content"] for m in each["messages"][1:]),
        )
        for line, each in enumerate(contents, start=1)
    ]


def test_a_duplicate_names_the_row_it_repeats():
    (finding,) = find_duplicates(rows_of(content(), content("zsh"), content(group="other")))
    assert (finding.line, finding.message) == (3, "the same as x.jsonl:1")


def test_what_tools_said_and_the_task_make_two_rows_of_one_line():
    plain, *_ = rows_of(content())
    told = replace(plain, line=2, task="wit", results=(ToolResult("which_binary", "git", "/usr/bin/git"),))
    other = replace(told, line=3, results=())
    assert not list(find_duplicates([plain, told, other]))
    assert not list(find_contradictions([plain, replace(other, after="git pull")]))
    assert [found.line for found in find_duplicates([plain, told, other, replace(told, line=4)])] == [4]


def test_contradictions_are_found_within_a_shell_with_blanks_counted_once():
    rows = rows_of(content(), content("zsh", after="git pull"), content(before="git  psuh", after="git pull"))
    assert [finding.line for finding in find_contradictions(rows)] == [1, 3]


def test_the_ceiling_of_exact_match_counts_what_the_rows_contradict_but_not_what_they_accept():
    train = rows_of(*[content(after="git pull") for _ in range(2)])
    test = rows_of(content(), content("zsh"))
    assert exact_match_ceiling(test, test) == 1
    assert exact_match_ceiling(test, [*train, *test]) == 0.5
    test[0].meta["accept"] = ["git pull"]
    assert exact_match_ceiling(test, [*train, *test]) == 1


def test_shares_may_be_off_by_half_a_point_and_no_more():
    rows = rows_of(*[content()] * 504, *[content("zsh")] * 496)
    assert not list(check_shares(Path("x"), rows, {"shell": {"bash": 0.5, "zsh": 0.5}}))
    found = list(check_shares(Path("x"), rows, {"shell": {"bash": 0.49, "zsh": 0.5, "fish": 0.01}}))
    assert [finding.message.split(",")[0].split()[-1] for finding in found] == ["bash", "fish"]


def test_the_mix_of_operators_is_held_to_its_table_where_there_are_enough():
    few = rows_of(content(before="sl | wc", after="ls | wc", tool="ls")) * (limits().operator_rows_any - 1)
    assert not list(check_operators(Path("x"), few))
    found = {finding.message.split(", ")[0] for finding in check_operators(Path("x"), [*few, few[0]])}
    assert "100.00% of the answers with an operator have |" in found
    assert "0.00% of the answers with an operator have &&" in found


def test_a_line_may_not_be_most_of_the_rows_whatever_its_particulars():
    rows = rows_of(
        *[content(before=f"git psuh {n}", after=f"git push {n}") for n in range(limits().skeleton_rows_any)]
    )
    assert not list(check_repetition(rows))
    found = list(check_repetition([*rows, rows[0]]))
    assert [(each.rule, each.line) for each in found] == [("repetition", 1)]


def test_as_many_rows_are_needed_as_were_asked_for():
    rows = rows_of(*[content()] * 10)
    assert not list(check_size(Path("x"), rows, 10))
    assert list(check_size(Path("x"), rows, 11))


def test_every_rule_has_its_place_in_the_report():
    assert set(ROW_RULES) < set(WORST_FIRST)


def test_every_mistake_that_data_weighs_is_a_known_kind():
    mistakes = yaml.safe_load((REPOSITORY / "data/mistakes.yaml").read_text())
    weighed = set(mistakes["weights"]) - {"structural"}
    for kinds in mistakes["structural"].values():
        weighed |= set(kinds)
    assert weighed <= limits().kinds


def some_rows(count: int = 200) -> list[dict]:
    """Bash and zsh alternating, a fifth already right, a few of a held-out tool."""
    rows = []
    for number in range(count):
        shell, tool = ("bash", "zsh")[number % 2], "helm" if number // 2 % 25 == 3 else "git"
        right = f"{tool} fetch v{number // 2}"
        wrong = right if number // 2 % 5 == 0 else right.replace("fetch", "fecth")
        rows.append(content(shell, wrong, right, tool=tool, group=f"g{number // 2}"))
    return rows


@pytest.fixture
def project(tmp_path: Path) -> Path:
    tables = ("danger", "mistakes", "promised", "requests", "slips", "unfixable", "validation", "wrappers")
    names = [f"data/{name}.yaml" for name in tables]
    for name in (*names, "tests/inference_test_cases.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    (tmp_path / "data/grammar").symlink_to(REPOSITORY / "data/grammar")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    write(tmp_path / "data/generated.jsonl", some_rows())
    return tmp_path


def validate(project: Path, *files: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.validate", *files],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )


def outputs(project: Path) -> dict[str, bytes]:
    found = [*project.glob("data/dataset/*"), *project.glob("metrics/*")]
    return {str(path.relative_to(project)): path.read_bytes() for path in sorted(found)}


def test_the_stage_writes_four_splits_and_their_figures_the_same_each_time(project):
    done = validate(project)
    assert done.returncode == 0, done.stderr
    first = outputs(project)
    assert list(first) == [f"data/dataset/{name}.jsonl" for name in ("heldout", "test", "train", "valid")] + [
        "metrics/data.json"
    ]
    figures = json.loads(first["metrics/data.json"])
    assert figures["rows"] == 200
    assert figures["exact_match_ceiling"] == 1
    rows = {split["split"]: split["rows"] for split in figures["splits"]}
    assert (rows["heldout"], rows["test"], rows["valid"]) == (8, 10, 10)
    assert figures["shell_shares"] == [{"name": "bash", "share": 0.5}, {"name": "zsh", "share": 0.5}]
    assert b"helm" not in first["data/dataset/train.jsonl"]
    validate(project)
    assert outputs(project) == first


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        (["helm", "rclon"], "[split] data.heldout_tools: no shell has this tool; did you mean rclone?"),
        (["rclone", "rclone"], "[split] data.heldout_tools: there 2 times; name it once"),
        (["cargo"], "data/promised.yaml promises it, so data.heldout_tools cannot keep its tool out of training"),
    ],
)
def test_a_tool_that_cannot_be_held_out_is_found_before_the_rows_are_read(project, tools, said):
    params = {**PARAMS, "data": {**PARAMS["data"], "heldout_tools": tools}}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    done = validate(project)
    assert done.returncode == 1
    assert said in done.stderr
    assert not outputs(project)


def test_a_broken_rule_names_file_line_rule_and_row_and_keeps_the_outputs(project):
    validate(project)
    before = outputs(project)
    write(
        project / "data/extra/mine.jsonl",
        [content("fish", "igt status", "git status"), content("fish", "git pusj", "git push --force"), b"{"],
    )
    done = validate(project)
    assert done.returncode == 1
    first, second, summary = done.stderr.splitlines()
    assert first.startswith("data/extra/mine.jsonl:3: [json] not JSON")
    assert second == (
        "data/extra/mine.jsonl:2: [danger] adds danger (force: --force): fish: git pusj -> git push --force"
    )
    assert summary.startswith("validate: error: 2 findings (json 1, danger 1)")
    assert outputs(project) == before


def test_extra_rows_join_the_splits_without_a_group_of_their_own(project):
    row = content("fish", "igt status", "git status")
    del row["meta"]["group"]
    write(project / "data/extra/mine.jsonl", [row])
    done = validate(project)
    assert done.returncode == 0, done.stderr
    assert json.loads((project / "metrics/data.json").read_text())["rows"] == 201


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("/nonexistent")])
def test_what_is_no_file_of_rows_is_named(project, make):
    (project / "data/extra").mkdir(exist_ok=True)
    make(project / "data/extra/mine.jsonl")
    done = validate(project)
    assert done.returncode == 1
    assert done.stderr.startswith("validate: error: data/extra/mine.jsonl: ")
    assert len(done.stderr.splitlines()) == 1


def test_rows_of_your_own_for_the_other_task_are_judged_but_wait_for_it(project):
    row = content("fish", "Input: igt status\n\n", "git status")
    row["messages"][0]["content"] = system_prompt("fish", "wit")
    write(project / "data/extra/mine.jsonl", [row])
    assert validate(project).returncode == 0
    assert json.loads((project / "metrics/data.json").read_text())["rows"] == 200
    row["messages"][2]["content"] = "git status --force"
    write(project / "data/extra/mine.jsonl", [row])
    assert "mine.jsonl:1: [danger]" in validate(project).stderr


@pytest.mark.parametrize("alone", [False, True])
def test_rows_of_your_own_run_what_exists_too(project, alone):
    mine = write(
        project / "data/extra/mine.jsonl", [content("fish", "git comit --frobnicate", "git commit --frobnicate")]
    )
    done = validate(project, *([str(mine)] if alone else []))
    assert done.returncode == 1
    assert "data/extra/mine.jsonl:1: [grammar] in no grammar: git --frobnicate" in done.stderr


def test_too_many_findings_are_counted_and_only_the_worst_shown(project):
    rows = [content(before="git psuh", after=f"git push {number}", group="g") for number in range(80)]
    done = validate(project, str(write(project / "many.jsonl", rows)))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == limits().printed + 1
    assert all("[contradiction]" in line for line in done.stderr.splitlines()[:-1])
    report = (project / ".cache/validate-report.jsonl").read_text().splitlines()
    assert len(report) == 80 + 80  # each contradicts another and takes its number from nowhere
    assert not outputs(project)


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (lambda path: path.write_bytes(b""), "[size] no rows"),
        (os.mkfifo, "is no file; name a file of rows"),
        (lambda path: path.write_bytes(b"7\n"), ":1: [schema] not an object"),
    ],
)
def test_what_holds_no_rows_is_said_to(project, made, line):
    strange = project / os.fsdecode(b"a\xff.jsonl")  # a name that is no UTF-8
    made(strange)
    done = validate(project, strange.name)
    assert done.returncode == 1
    assert line in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_alone_is_judged_by_its_rows_and_needs_neither_size_nor_shares(project):
    done = validate(project, str(write(project / "one.jsonl", [content()])))
    assert (done.returncode, done.stdout) == (
        0,
        "1 rows, nothing wrong\n"
        "not compared with the test rows, of which there are none here; `dvc repro validate` makes them\n",
    )


def test_a_file_alone_may_not_hold_what_the_last_run_has_kept_back(project):
    assert validate(project).returncode == 0
    kept = json.loads((project / "data/dataset/test.jsonl").read_text().splitlines()[0])
    alike = content("bash", "git psuh /srv/a.txt", "git push /srv/a.txt")
    rows = [kept, alike, content("bash", "helm isntall", "helm install")]
    done = validate(project, str(write(project / "theirs.jsonl", rows)))
    found = done.stderr.splitlines()[:-1]
    assert [line.split(": ")[0].rsplit(":", 1)[1] for line in found] == ["1", "3"]
    assert "data/dataset/test.jsonl:1 keeps this line back" in found[0]
    assert "kept out of training" in found[1]
    for own in ("generated.jsonl", "dataset/train.jsonl", "dataset/valid.jsonl", "dataset/test.jsonl"):
        assert validate(project, str(project / "data" / own)).returncode == 0, own
    with (project / "data/dataset/train.jsonl").open("a") as train:
        train.write(json.dumps(kept) + "\n")
    assert "keeps this line back" in validate(project, "data/dataset/train.jsonl").stderr


def test_rows_without_metadata_are_still_held_to_the_other_rules(project):
    row = content(before="apt update", after="sudo apt update")
    del row["meta"]
    done = validate(project, str(write(project / "one.jsonl", [row])))
    assert [line.split("[")[1].split("]")[0] for line in done.stderr.splitlines()[:2]] == ["danger", "meta"]


def test_missing_rows_are_an_error_that_names_the_file(project):
    (project / "data/generated.jsonl").unlink()
    done = validate(project)
    assert done.returncode == 1
    assert done.stderr.startswith("validate: error: data/generated.jsonl: not there")


def test_a_stage_whose_answers_run_what_nobody_knows_is_refused(project):
    generated = project / "data/generated.jsonl"
    generated.write_text(generated.read_text().replace("git fetch v9", "git fecht v9"))
    done = validate(project)
    assert done.returncode == 1
    assert "[grammar] in no grammar: git fecht" in done.stderr


def test_a_stage_whose_rows_are_one_line_is_refused(project):
    many = limits().skeleton_rows_any + 1
    write(
        project / "data/generated.jsonl", [content("bash", f"git psuh {n}", f"git push {n}") for n in range(many)]
    )
    done = validate(project)
    assert done.returncode == 1
    assert "repetition 1" in done.stderr


def test_a_stage_whose_operators_are_not_those_asked_for_is_refused(project):
    table = project / "data/validation.yaml"
    table.write_text(table.read_text().replace("rows_any: 4000", "rows_any: 40"))
    rows = [content("bash", f"git psuh v{n} | wc", f"git push v{n} | wc") for n in range(50)]
    write(project / "data/generated.jsonl", rows)
    done = validate(project)
    assert done.returncode == 1
    assert (
        "100.00% of the answers with an operator have |, 57.00% are asked for; mend data/chains.yaml"
        in done.stderr
    )


def test_a_share_that_is_off_is_an_error(project):
    write(project / "data/generated.jsonl", some_rows(230))
    params = {**PARAMS, "data": {**PARAMS["data"], "families": {"subcommand": 0.7, "correct": 0.3}}}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    done = validate(project)
    assert done.returncode == 1
    assert "[shares]" in done.stderr
    assert not outputs(project)
