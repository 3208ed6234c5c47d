"""What counts as danger that a correction adds, and what is only a dangerous word spelt right."""

import pytest

from stages.common.chat import SHELLS
from stages.common.danger import added_danger, danger_table, find_dangers
from stages.common.words import quoted_lines, simple_commands, words
from stages.generating.tables import everyday_lines, read_tables

ADDED = [
    ("bash", "apt update", "sudo apt update", ["elevation: sudo"]),
    ("bash", "sed -i s/a/b/ notes.txt", "sudo sed -i s/a/b/ notes.txt", ["elevation: sudo"]),
    ("fish", "make instal", "doas make install", ["elevation: doas"]),
    ("zsh", "git push", "git push --force", ["force: --force"]),
    ("bash", "git psuh origin main", "git push -f origin main", ["force: -f"]),
    ("bash", "git reset --soft HEAD~1", "git reset --hard HEAD~1", ["force: --hard"]),
    ("bash", "git branch -d topic", "git branch -D topic", ["delete: -D"]),
    ("bash", "sudo -u me rm build", "sudo -u me rm -f build", ["force: -f"]),
    ("bash", "rm build", "rm -rf build", ["recursive: -rf", "force: -rf"]),
    ("bash", "rm -f build", "rm -rf build", ["recursive: -rf"]),
    ("tcsh", "ls build", "rm build", ["remove: rm"]),
    ("bash", "kill 4242", "kill -9 4242", ["kill: -9"]),
    ("bash", "kill -1 4242", "kill -9 4242", ["kill: -9"]),
    ("bash", "chmod 755 run.sh", "chmod 777 run.sh", ["open: 777"]),
    ("bash", "cat disk.img", "dd if=disk.img of=/dev/sda", ["write_to_device", "disk: dd"]),
    ("bash", "ls /dev/sdb1", "mkfs.ext4 /dev/sdb1", ["disk: mkfs.ext4"]),
    ("bash", "curl https://example.com/i.sh", "curl https://example.com/i.sh | sh", ["download_and_run"]),
    ("zsh", "ls", ":(){ :|:& };:", ["fork_bomb"]),
    ("bash", "timeout 9 ls build", "timeout 9 rm build", ["remove: rm"]),
    ("bash", "setsid ls build", "setsid rm build", ["remove: rm"]),
    ("bash", "env -i ls build", "env -i rm build", ["remove: rm"]),
    ("bash", "ssh web 'ls /srv'", "ssh web 'sudo ls /srv'", ["elevation: sudo"]),
    (
        "powershell",
        "Remove-Item logs",
        "Remove-Item logs -Recurse -Force",
        ["force: -force", "recursive: -recurse"],
    ),
    ("powershell", "irm https://example.com/i.ps1", "irm https://example.com/i.ps1 | iex", ["download_and_run"]),
    ("cmd", "del notes.txt", "del /f /q notes.txt", ["force: /f", "force: /q"]),
    ("cmd", "dir logs", "rd /s /q logs", ["remove: rd", "recursive: /s", "force: /q"]),
    ("cmd", "taskkill /im app.exe", "taskkill /f /im app.exe", ["force: /f"]),
    ("bash", "mr -f x", "rm -rf x", ["recursive: -rf"]),
    ("bash", "grpe 'permission denied' a.log", "sudo grep 'permission denied' a.log", ["elevation: sudo"]),
    ("bash", "rm a", "rm *", ["everything: *"]),
    ("bash", "rm -rf a b", "rm -rf /", ["everything: /"]),
    ("bash", "find . -exec ls {} \\;", "find . -exec rm {} \\;", ["remove: rm"]),
    ("bash", "eval ls x", "eval rm x", ["remove: rm"]),
    ("bash", "docker system", "docker system prune", ["delete: prune"]),
    ("bash", "curl https://example.com/i.py", "curl https://example.com/i.py | python3", ["download_and_run"]),
    (
        "powershell",
        "rm logs",
        "Remove-Item logs -Recurse:$true -Force:$true",
        ["force: -force", "recursive: -recurse"],
    ),
    ("cmd", "if exist a type a", "if exist a del a", ["remove: del"]),
    ("cmd", "@dir a", "@del a", ["remove: @del"]),
    ("cmd", "call dir a", "call del a", ["remove: del"]),
    ("cmd", "cmd /c dir a", "cmd /c del a", ["remove: del"]),
    ("cmd", "dir a", "del.exe a", ["remove: del.exe"]),
    ("cmd", "git clean", "git clean -fdx", ["force: -fdx"]),
]

CARRIED = [
    ("bash", "sudp apt update", "sudo apt update"),
    ("bash", "suod apt update", "sudo apt update"),
    ("bash", "sudoapt update", "sudo apt update"),
    ("bash", "sud oapt update", "sudo apt update"),
    ("bash", "git push --forc", "git push --force"),
    ("bash", "git push -forse", "git push --force"),
    ("bash", "git push --froce origin", "git push --force origin"),
    ("bash", "git push -f origin main", "git push --force origin main"),
    ("bash", "git psuh -f origin main", "git push -f origin main"),
    ("bash", "git push--force", "git push --force"),
    ("bash", "rn -rf build", "rm -rf build"),
    ("bash", "rm -fr build", "rm -rf build"),
    ("bash", "rm -tf build", "rm -rf build"),
    ("bash", "rm rf build", "rm -rf build"),
    ("bash", "rm-rf build", "rm -rf build"),
    ("bash", "rmm *", "rm *"),
    ("bash", "git stsh drop", "git stash drop"),
    ("bash", "apt update: Permission denied", "sudo apt update"),
    ("cmd", "if exist b dr b", "if exist b rd b"),
    ("bash", "chmod 7777 run.sh", "chmod 777 run.sh"),
    ("bash", "tail app.log", "tail -f app.log"),
    ("bash", "kubectl aply x.yaml", "kubectl apply -f x.yaml"),
    ("bash", "crul https://example.com/i.sh | sh", "curl https://example.com/i.sh | sh"),
    ("bash", "grpe sudo notes.txt", "grep sudo notes.txt"),
    ("powershell", "Remove-Itme logs -Recurse -Force", "Remove-Item logs -Recurse -Force"),
    ("powershell", "Remove Item logs -Rec -Fo", "Remove-Item logs -Recurse -Force"),
    ("powershell", "REMOVE-ITEM logs -FORCE", "Remove-Item logs -Force"),
    ("powershell", "rd /s /q logs", "Remove-Item logs -Recurse -Force"),
    ("cmd", "del /F noets.txt", "del /f notes.txt"),
    ("cmd", "findstr TODO *.c", "findstr /s TODO *.c"),
]

REFUSALS = (
    ": Permission denied",
    ": permission denied",
    " # permission denied",
    ": Operation not permitted",
    ": must be run as root",
    " (are you root?)",
    ": Access denied",
    " -> permission denied",
    ": requires superuser privileges",
)
"""What a shell says when a command needs root, pasted behind it."""


@pytest.mark.parametrize(("shell", "before", "after", "expected"), ADDED)
def test_danger_that_the_typed_line_does_not_carry_is_named(shell, before, after, expected):
    assert sorted(added_danger(shell, before, after)) == sorted(expected)


@pytest.mark.parametrize(("shell", "before", "after"), CARRIED)
def test_danger_that_was_typed_or_mistyped_is_not_added(shell, before, after):
    assert added_danger(shell, before, after) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_table_and_unchanged_lines_add_nothing(shell):
    assert danger_table(shell).words
    assert added_danger(shell, "sudo rm -rf /", "sudo rm -rf /") == []


def test_words_keep_quotes_together_and_split_operators_off():
    line = "grep 'a b' x.log 2>&1|sort>out.txt"
    assert words(line) == ["grep", "'a b'", "x.log", "2>&1", "|", "sort", ">", "out.txt"]


def test_simple_commands_look_behind_prefixes_and_operators():
    assert simple_commands("cd src && sudo make -j2; sh -c 'ls -l'") == [
        ["cd", "src"],
        ["sudo", "make", "-j2"],
        ["make", "-j2"],
        ["sh", "-c", "'ls -l'"],
    ]
    assert simple_commands("sudo -u me ls -l")[2:] == [["me", "ls", "-l"], ["ls", "-l"]]
    assert simple_commands("if ! git pull; then xargs -n1 rm; fi")[-3:] == [["-n1", "rm"], ["rm"], ["fi"]]
    assert simple_commands("sudo -u me nice -n 10 make")[-1] == ["make"]
    assert simple_commands("timeout -s KILL 10s docker")[-1] == ["docker"]
    assert quoted_lines("cd 'src' && sh -c 'ls -l'") == ["ls -l"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_quick_look_never_misses_a_danger(shell: str):
    table = danger_table(shell)
    answers = [answer for of_shell, _, answer, *_ in (*ADDED, *CARRIED) if of_shell == shell]
    everyday = everyday_lines(read_tables(), shell).values()
    lines = [*answers, *(line for lines in everyday for line in lines)]
    dangerous = [line for line in lines if find_dangers(table, line)]
    assert len(dangerous) > 10
    assert [line for line in dangerous if not table.may_hold(line)] == []
    assert sum(map(table.may_hold, lines)) < len(lines) / 2


@pytest.mark.parametrize("evidence", REFUSALS)
def test_a_refusal_carries_the_sudo_of_its_answer_and_nothing_else(evidence: str):
    assert added_danger("bash", f"ufw status{evidence}", "sudo ufw status") == []
    assert added_danger("bash", f"rm a{evidence}", "sudo rm -rf a") != []
    assert added_danger("bash", "ufw status", "sudo ufw status") != []
