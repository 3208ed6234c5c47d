"""The grammars, usage templates, slots and popularity agree with each other."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

DATA = Path("data")
GRAMMAR = DATA / "grammar"
SLOT = re.compile(r"\{=?([a-z_][a-z_0-9]*)\}")
WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|\\.|\$?\([^()]*\)|\{[^{}]*\}|[^\s"'\\|;&])+|[|;&]+""")
REDIRECT = re.compile(r"^(?:\d|&)?(?:>>?&?|<{1,3})(.*)$")

# Words that run the rest of the line, and words after whose first argument options belong to another program.
RUNS_THE_REST = {"sudo", "doas", "time", "nohup", "nice", "xargs", "watch", "exec", "noglob", "command", "builtin"}
THEN_FOREIGN = {
    "timeout", "strace", "gdb", "ssh", "env", "python", "python3", "node", "java", "docker run", "docker exec",
    "docker compose exec", "docker compose run", "docker-compose exec", "docker-compose run", "podman run",
    "podman exec", "poetry run", "pipenv run", "uv run", "bundle exec", "npx", "conda run", "perl", "ruby", "php",
    "perf record", "perf stat", "valgrind", "screen", "deno run",
}  # fmt: skip
SHELL_WORDS = {
    "for", "while", "if", "foreach", "end", "function", "repeat", "@", "[", ".", "trap", "done", "do", "then",
    "fi", "and", "or",
}  # fmt: skip


@cache
def grammar(name: str) -> dict[str, Any]:
    return json.loads((GRAMMAR / f"{name}.json").read_text(encoding="utf-8"))


@cache
def usage() -> dict[str, dict[str, list[str]]]:
    return yaml.safe_load((DATA / "usage.yaml").read_text(encoding="utf-8"))


@cache
def slots() -> dict[str, list[str]]:
    return yaml.safe_load((DATA / "slots.yaml").read_text(encoding="utf-8"))


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The sum of two nodes; subcommands of the same name are merged."""
    both = {key: [*one.get(key, []), *other.get(key, [])] for key in ("o", "a")}
    subcommands = [dict(sub) for sub in one.get("s", [])]
    for extra in other.get("s", []):
        twin = next((i for i, sub in enumerate(subcommands) if set(sub["n"]) & set(extra["n"])), None)
        if twin is None:
            subcommands.append(extra)
        else:
            subcommands[twin] = merged(subcommands[twin], extra)
    return {**other, **one, **both, "s": subcommands}


@cache
def tool(name: str) -> dict[str, Any] | None:
    """A tool of the POSIX grammars, `like` followed."""
    nodes = [table[name] for table in (grammar("posix"), grammar("hand")) if name in table]
    if not nodes:
        return None
    node = nodes[0] if len(nodes) == 1 else merged(*nodes)
    return merged(tool(node["like"]) or {}, node) if "like" in node else node


@cache
def subcommand_tools() -> set[str]:
    """Tools whose first argument is a subcommand, though the source allows an alias or a script there too."""
    popularity = json.loads((DATA / "popularity.json").read_text(encoding="utf-8"))
    return {name for name, entry in popularity["posix"].items() if "s" in entry} - {"history"}


def rendered(template: str) -> str:
    """The template with the first value of every slot."""
    return SLOT.sub(lambda slot: slots()[slot.group(1)][0], template)


def segments(line: str) -> list[list[str]]:
    """The simple commands of a line, redirections left out."""
    commands: list[list[str]] = [[]]
    skip = False
    for word in WORD.findall(line):
        redirect = REDIRECT.match(word)
        if skip:
            skip = False
        elif re.fullmatch(r"[|;&]+", word):
            commands.append([])
        elif redirect:
            skip = not redirect.group(1)
        else:
            commands[-1].append(word)
    return [words for words in commands if words]


def option_takes(node: dict[str, Any], word: str) -> int | None:
    """How many of the following words the option takes; None where the node has no such option."""
    spelled = {name: option for option in node["options"] for name in option["n"]}
    name, equals, _ = word.partition("=")
    for candidate in (word, name):
        if candidate in spelled:
            required = [a for a in spelled[candidate].get("a", []) if not a.get("opt")]
            return 0 if equals else len(required)
    if re.fullmatch(r"-\d+", word) and node.get("numbers"):
        return 0
    if word.startswith("--") or not re.match(r"-\w", word):
        return None
    for i, letter in enumerate(word[1:], start=1):
        if f"-{letter}" not in spelled:
            return None
        arguments = spelled[f"-{letter}"].get("a", [])
        if arguments:
            last = i == len(word) - 1
            return len([a for a in arguments if not a.get("opt")]) if last else 0
    return 0


def posix_violations(words: list[str], shell_functions: set[str]) -> list[str]:
    """What in a simple command no grammar has: the command, a subcommand, an option."""
    while words and re.match(r"^[A-Z_]+=", words[0]):
        words = words[1:]
    if not words or words[0] in SHELL_WORDS or words[0].startswith(("./", "(", "$", "@", '"', "+", "!", "path+=")):
        return []
    name = words[0]
    node = tool(name)
    if node is None:
        return [] if name in shell_functions else [f"unknown command {name}"]
    path, positional, found = [name], 0, []
    persistent: list[dict[str, Any]] = []
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("-") and len(word) > 1:
            here = {
                "options": node.get("o", []) + persistent,
                "numbers": name in ("head", "tail", "git", "journalctl"),
            }
            takes = option_takes(here, word)
            if takes is None:
                found.append(f"{' '.join(path)}: no option {word}")
            else:
                rest = rest[takes:]
        elif positional == 0 and (sub := next((s for s in node.get("s", []) if word in s["n"]), None)):
            persistent += [option for option in node.get("o", []) if option.get("p")]
            node, path = sub, [*path, word]
        elif positional == 0 and name in RUNS_THE_REST:
            return found + posix_violations([word, *rest], shell_functions)
        else:
            strict = not node.get("a") or (path == [name] and name in subcommand_tools())
            if positional == 0 and node.get("s") and strict:
                found.append(f"{' '.join(path)}: no subcommand {word}")
            positional += 1
            if " ".join(path) in THEN_FOREIGN:
                break
    return found


POSIX_GROUPS = ["posix", "bash_zsh", "bash", "zsh", "fish", "tcsh"]


@pytest.mark.parametrize("name", ["posix", "hand", "powershell", "cmd"])
def test_a_grammar_names_its_source(name: str) -> None:
    assert "MIT" in grammar(name)["_source"]


def test_every_slot_of_a_template_has_values() -> None:
    unknown = [
        (group, template, slot)
        for group, tools in usage().items()
        for templates in tools.values()
        for template in templates
        for slot in SLOT.findall(template)
        if slot not in slots()
    ]
    assert unknown == []


def test_slot_values_are_text_without_slots_and_without_repeats() -> None:
    for slot, values in slots().items():
        assert len(values) >= 3, slot
        assert len(set(values)) == len(values), slot
        for value in values:
            assert isinstance(value, str), (slot, value)
            assert value == value.strip(), (slot, value)
            assert not SLOT.search(value), (slot, value)


def test_slot_values_hold_only_example_hosts_and_addresses() -> None:
    address = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")
    allowed = ("192.0.2.", "198.51.100.", "203.0.113.", "127.0.0.1")
    found = [
        (slot, match)
        for slot, values in slots().items()
        for value in values
        for match in address.findall(value)
        if not match.startswith(allowed)
    ]
    assert found == []


def test_no_template_is_listed_twice() -> None:
    for group, tools in usage().items():
        for name, templates in tools.items():
            assert len(set(templates)) == len(templates), (group, name)


@pytest.mark.parametrize("group", POSIX_GROUPS)
def test_every_posix_template_is_in_the_grammar(group: str) -> None:
    functions = {value for slot in ("aliasname", "fishfunc") for value in slots()[slot]}
    found = [
        f"{template}: {violation}"
        for templates in usage()[group].values()
        for template in templates
        for words in segments(rendered(template))
        for violation in posix_violations(words, functions)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line", ["gitt status", "git comit", "git commit --ammend", "ls -la | grpe x", "tar -xyf a"]
)
def test_a_mistake_in_a_posix_line_is_seen(line: str) -> None:
    assert [v for words in segments(line) for v in posix_violations(words, set())]


def powershell_violations(line: str) -> list[str]:
    """Unknown cmdlets, aliases and parameters in a PowerShell line; script blocks count as lines of their own."""
    table = grammar("powershell")
    commands = {name.lower(): value for name, value in table["commands"].items()}
    aliases = {name.lower(): target.lower() for name, target in table["aliases"].items()}
    common = {name.lower() for name in [*table["common"]["p"], *table["common"]["a"]]}
    found = []
    for part in re.split(r"[|{}();]", re.sub(r'"[^"]*"', '""', line)):
        words = part.split()
        if not words or not re.match(r"[A-Za-z?%][\w-]*$", words[0]):
            continue
        name = aliases.get(words[0].lower(), words[0].lower())
        if name not in commands:
            if words[0].lower() not in ("hostname", "git"):
                found.append(f"unknown command {words[0]}")
            continue
        known = {p.lower() for p in [*commands[name]["p"], *commands[name].get("a", {})]} | common
        operators = {"eq", "ne", "gt", "lt", "ge", "le", "like", "match", "contains"} if "where" in name else set()
        for word in words[1:]:
            parameter = re.fullmatch(r"-([A-Za-z]\w*)(?::.*)?", word)
            if parameter and parameter.group(1).lower() not in known | operators:
                found.append(f"{words[0]}: no parameter {word}")
    return found


def test_every_powershell_template_is_in_the_grammar() -> None:
    found = [
        f"{template}: {violation}"
        for templates in usage()["powershell"].values()
        for template in templates
        for violation in powershell_violations(rendered(template))
    ]
    assert found == []


@pytest.mark.parametrize("line", ["Get-ChidItem", "Get-ChildItem -Recurce", "Get-Process | Sort-Objct CPU"])
def test_a_mistake_in_a_powershell_line_is_seen(line: str) -> None:
    assert powershell_violations(line)


@cache
def cmd_tools() -> dict[str, dict[str, Any]]:
    table = {name: node for name, node in grammar("cmd").items() if not name.startswith("_")}
    return table | {alias: node for node in table.values() for alias in node.get("alias", [])}


def cmd_violations(line: str) -> list[str]:
    """Unknown commands, subcommands and switches in a line of cmd.exe."""
    found = []
    for words in segments(line.replace("\\", "/backslash/").replace(";", ",")):
        name = words[0].removesuffix(".") if words[0] == "echo." else words[0]
        node = cmd_tools().get(name.lower())
        if node is None:
            found.append(f"unknown command {name}")
            continue
        options = {spelling for option in node.get("o", []) for spelling in option["n"]} | {"/?"}
        for i, word in enumerate(words[1:]):
            sub = next((s for s in node.get("s", []) if word.lower() in s["n"]), None)
            if sub:
                node = sub
                options |= {spelling for option in sub.get("o", []) for spelling in option["n"]}
            elif i == 0 and node.get("s") and not node.get("a") and not word.startswith(("-", "/")):
                found.append(f"{name}: no subcommand {word}")
            elif name in ("if", "for") and i > 1:
                break
            elif re.match(r"[/-][A-Za-z?+-]", word) and not word.startswith("/backslash/"):
                switch = re.split(r"[:=]", word)[0]
                short = switch[:2] in options and name in ("dir", "cmd", "tar", "curl", "netstat")
                if not {switch, switch.lower()} & options and not short:
                    found.append(f"{name}: no switch {word}")
    return found


def test_every_cmd_template_is_in_the_grammar() -> None:
    found = [
        f"{template}: {violation}"
        for templates in usage()["cmd"].values()
        for template in templates
        for violation in cmd_violations(rendered(template))
    ]
    assert found == []


@pytest.mark.parametrize("line", ["dri", "dir /j", "net usr", "ipconfig /al"])
def test_a_mistake_in_a_cmd_line_is_seen(line: str) -> None:
    assert cmd_violations(line)


def test_every_command_has_a_popularity() -> None:
    popularity = json.loads((DATA / "popularity.json").read_text(encoding="utf-8"))
    names = {
        "posix": {n for table in ("posix", "hand") for n in grammar(table) if not n.startswith("_")},
        "powershell": {*grammar("powershell")["commands"], *grammar("powershell")["aliases"]},
        "cmd": set(cmd_tools()),
    }
    for shell, commands in names.items():
        assert commands - set(popularity[shell]) == set(), shell
        assert all(entry["w"] > 0 for entry in popularity[shell].values()), shell


def test_popular_subcommands_exist() -> None:
    popularity = json.loads((DATA / "popularity.json").read_text(encoding="utf-8"))
    for shell, node in (("posix", tool), ("cmd", cmd_tools().get)):
        for name, entry in popularity[shell].items():
            known = {spelling for sub in (node(name) or {}).get("s", []) for spelling in sub["n"]}
            assert set(entry.get("s", {})) - known == set(), name
