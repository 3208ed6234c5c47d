"""The rules that one row must keep, each by itself: `rule(row, max_chars)` yields what is wrong.

`ROW_RULES` lists them by id, the worst first; a rule's limits and patterns are in `data/validation.yaml`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from rapidfuzz.distance import OSA, Prefix

from stages.common.chat import OUTPUT_CHARS, SHELLS, TOOLS, is_shown
from stages.common.danger import added_danger
from stages.common.grammar import system_of
from stages.common.layouts import latin
from stages.common.words import command_name, words
from stages.validating.answers import read_answer
from stages.validating.known import known_at, nearest_command
from stages.validating.limits import PIECE, command_key, limits
from stages.validating.rows import Finding, Row

_PLAIN = re.compile(r"[ -~]*")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffd]")
SYMBOLS = frozenset(["So", "Sk", "Cf", "Co", "Cn"])
"""Unicode's categories of emoji and other pictures, marks by themselves, invisible and unassigned characters."""
TYPESET = re.compile(
    "[\u00a0\u1680\u2000-\u200a\u2010-\u2015\u2018-\u201f\u202f\u205f\u3000\u115f\u1160\u3164\u2800\ufb00-\ufb06\uff01-\uff5e]"
)
"""Blanks, dashes, quotes, joined and wide letters as text processors put them."""
META = ("shell", "family", "kind", "tool", "source", "group")
_OPTIONAL_META = "accept"
_KNOWN_META = frozenset([*META, _OPTIONAL_META])
_QUOTED = "quoted"
_REQUEST = "request"
_UNFIXABLE = "unfixable"
_ESCAPE = re.compile(r"\\[bdswBDSW]")
_SPACES_AND_QUOTES = re.compile(r"[\s\"']+")


def schema(row: Row, max_chars: int) -> Iterator[str]:
    """A known prompt, clean and short texts, tools that there are."""
    if not row.shell:
        yield f"the system text is not exactly the prompt of one of {', '.join(SHELLS)}"
    for result in row.results:
        if result.tool not in TOOLS:
            yield f"{result.tool!r} is none of the tools {', '.join(TOOLS)}"
        if not is_shown(result.output):
            yield f"what {result.tool} says is not cut at {OUTPUT_CHARS} characters, blanks counted once"
        if control := CONTROL.search(result.argument + result.output):
            yield f"what {result.tool} says holds the control character {control.group()!r}"
        if unseen := next((c for c in result.argument + result.output if unicodedata.category(c) == "Cf"), None):
            yield f"what {result.tool} says holds the invisible character {unseen!r}"
        if not 0 < len(result.argument) <= OUTPUT_CHARS:
            yield f"{result.tool} is asked of {len(result.argument)} characters; 1 to {OUTPUT_CHARS} make sense"
    if len(set(row.results)) < len(row.results) or len(row.results) > len(TOOLS):
        yield f"{len(row.results)} results of tools; each tool says a thing once, and there are {len(TOOLS)}"
    accepted = [("accepted answer", other) for other in row.answers[1:]]
    for name, text in (("typed line", row.before), ("answer", row.after), *accepted):
        if len(text) > max_chars:
            yield f"the {name} has {len(text)} characters; at most {max_chars} (data.max_chars) are allowed"
        if not text.strip():
            yield f"the {name} is empty"
        elif text != text.strip():
            yield f"the {name} starts or ends with a blank"
        if _PLAIN.fullmatch(text):
            continue
        if control := CONTROL.search(text):
            yield f"the {name} holds the control character {control.group()!r}"
        if symbol := next((c for c in text if not c.isascii() and unicodedata.category(c) in SYMBOLS), None):
            yield f"the {name} holds the symbol {symbol!r}, which nobody types in a shell"
        if name != "typed line" and (typeset := TYPESET.search(text)):
            yield f"the {name} holds {typeset.group()!r}, which no shell takes for the plain character"
        if not unicodedata.is_normalized("NFC", text):
            yield f"the {name} is not in Unicode's normal form NFC"


def meta(row: Row, max_chars: int) -> Iterator[str]:
    """Complete metadata that fit the texts, from the known lists."""
    said = row.meta
    if not said:
        yield f"no `meta` with {', '.join(META)}"
        return
    if not said.keys() <= _KNOWN_META:
        for key in sorted(said.keys() - _KNOWN_META):
            yield f"meta.{key} is unknown"
    missing = [key for key in META if not isinstance(said.get(key), str) or not said[key]]
    if missing:
        yield f"missing in meta, empty or no text: {', '.join(missing)}"
        return
    for key in ("tool", "source"):
        if said[key] != said[key].strip() or CONTROL.search(said[key]):
            yield f"meta.{key} starts or ends with a blank, or holds a control character"
    if row.shell and said["shell"] != row.shell:
        yield f"meta.shell is {said['shell']!r}, the prompt's shell {row.shell!r}"
    if said["family"] not in limits().families:
        yield f"meta.family {said['family']!r} is unknown"
    if said["kind"] not in limits().kinds:
        yield f"meta.kind {said['kind']!r} is unknown"
    if said["kind"] == _REQUEST and said["family"] != _REQUEST:
        yield f"meta.kind {said['kind']!r} does not go with meta.family {said['family']!r}"
    of_kind = limits().unchanged_kinds.get(said["kind"])
    if of_kind != (said["family"] if said["family"] in limits().unchanged else None):
        yield f"meta.kind {said['kind']!r} does not go with meta.family {said['family']!r}"
    accept = said.get(_OPTIONAL_META, [])
    if not (isinstance(accept, list) and all(isinstance(other, str) and other.strip() for other in accept)):
        yield "meta.accept is no list of commands"
    elif row.after in accept or len(set(accept)) < len(accept):
        yield "meta.accept names an answer twice"
    # an assignment alone has no command; the word itself stands for it
    commands = read_answer(row.shell, row.after).commands
    if command_name(said["tool"]) not in commands and not f"{row.after} ".startswith(f"{said['tool']} "):
        yield f"meta.tool {said['tool']!r} is no command of the answer"


def null(row: Row, max_chars: int) -> Iterator[str]:
    """An answer equals its input in the families of lines that stay as they are, and nowhere else."""
    family = row.meta.get("family")
    if family is None:
        return
    is_unchanged = row.family in limits().unchanged
    if is_unchanged and row.before != row.after:
        yield "changed, in a family of lines that stay as they are"
    elif not is_unchanged and row.before in row.answers:
        yield f"nothing is corrected, in family {family!r}"


def form(row: Row, max_chars: int) -> Iterator[str]:
    """Something beside blanks and capitals differs, unless the kind of mistake says otherwise."""
    kind = row.kind
    if not kind or kind in limits().kinds_of_form or row.before == row.after:
        return
    if "".join(row.before.casefold().split()) == "".join(row.after.casefold().split()):
        yield f"only blanks or capitals differ, which is no {kind}"


def mistyped(row: Row, max_chars: int) -> Iterator[str]:
    """The word with the typo is none that the grammar knows there: else there would be nothing to correct."""
    kind = row.kind
    if not row.shell or row.family not in limits().mistyped_families or kind not in limits().mistyped_kinds:
        return
    if row.before == row.after or row.before.count(" ") != row.after.count(" "):
        return  # what differs first may be no mistyped word
    place = Prefix.similarity(row.before, row.after)
    if found := known_at(row.before, place, system_of(row.shell)):
        yield f"there is {found}, which makes it no {kind}"


def fixable(row: Row, max_chars: int) -> Iterator[str]:
    """The first word of an unfixable line is far from every command: else somebody could fix it."""
    if row.family != _UNFIXABLE or not row.shell:
        return
    typed = row.before.split()
    is_sentence = row.kind in limits().no_command_kinds and len(typed) >= limits().sentence_words
    edits = 0 if is_sentence else limits().unfixable_edits
    if typed and (near := nearest_command(typed[0], system_of(row.shell), edits)):
        yield f"{typed[0]} may be meant as {near}, so that somebody could fix the line"


def foreign(row: Row, max_chars: int) -> Iterator[str]:
    """An answer is in its shell's language, not in another one's."""
    if row.kind in limits().no_command_kinds:
        return
    for answer in row.answers:
        if found := read_answer(row.shell, answer).foreign:
            yield f"the answer holds {found!r}, which is not {row.shell}'s language"


def danger(row: Row, max_chars: int) -> Iterator[str]:
    """An answer adds no danger that its input does not carry."""
    for answer in row.answers:
        if not read_answer(row.shell, answer).may_endanger:
            continue
        if added := added_danger(row.shell, latin(row.before), answer):
            yield f"adds danger ({', '.join(added)})"


def private(row: Row, max_chars: int) -> Iterator[str]:
    """No text holds a key, a password, or what belongs to a real person."""
    shapes = limits().private
    in_text = {answer: read_answer(row.shell, answer).private for answer in row.answers}
    for heard in (row.before, *(text for said in row.results for text in (said.argument, said.output))):
        if heard not in in_text:
            in_text[heard] = shapes.find(heard)
    for places in in_text.values():
        for kind, found in places.items():
            yield f"{found!r} looks like a real {kind}; use an example"


def leftover(row: Row, max_chars: int) -> Iterator[str]:
    """Neither text holds remains of a template."""
    answered = read_answer(row.shell, row.after).leftovers
    for kind, found in answered.items():
        yield f"the answer holds {found!r} ({kind})"
    for other in row.answers[1:]:
        for kind, found in read_answer(row.shell, other).leftovers.items():
            yield f"an accepted answer holds {found!r} ({kind})"
    for said in row.results:
        if found := limits().chat_marks.find(said.output):
            yield f"what {said.tool} says holds {found!r}"
    for kind, found in limits().leftovers.find(row.before).items():
        # a typo may hide the command that allows the shape, so what a clean answer keeps is no finding
        if kind not in answered and found not in row.after:
            yield f"the typed line holds {found!r} ({kind})"


def invented(row: Row, max_chars: int) -> Iterator[str]:
    """Paths, URLs, numbers and quoted texts of the answer come from the input, a typo of them at most.

    What tools said is input too.
    """
    if row.before == row.after:
        return
    for answer in row.answers:
        yield from _invented(row, answer)


def _invented(row: Row, answer: str) -> Iterator[str]:
    before = " ".join([latin(row.before), *(result.output for result in row.results)])
    typed = words(before)
    known = set(typed)
    squeezed = _squeeze(before)
    table = limits().table_words.get(row.family, {})
    of_table = [*table.get(command_key(answer.split(" ", 1)[0]), ()), *table.get("", ())]
    for word in read_answer(row.shell, answer).words:
        if word in known:
            continue
        value = word.split("=", 1)[1] if word.startswith("-") and "=" in word else word
        kind = _value_kind(row.shell, value)
        if not kind or _squeeze(value) in squeezed or _is_near(value, typed):
            continue
        if not _is_put_together(kind, value, squeezed, of_table):
            yield f"the {kind} {value} comes from nowhere"


def _is_put_together(kind: str, value: str, squeezed: str, of_table: Sequence[frozenset[str]]) -> bool:
    """Whether a value is made of typed words: a quoted text with other marks between, or what an entry says."""
    if kind == _QUOTED:
        value, of_table = _ESCAPE.sub(" ", value), of_table or (frozenset(),)
    pieces = [piece for piece in PIECE.findall(value) if piece not in squeezed]
    return any(all(piece in of_entry for piece in pieces) for of_entry in of_table)


def _value_kind(shell: str, word: str) -> str | None:
    not_values = limits().not_values
    for shapes in (not_values["all"], not_values.get(shell)):
        if shapes is not None and shapes.fullmatch(word):
            return None
    return next((kind for kind, shape in limits().values.items() if shape.fullmatch(word)), None)


def _is_near(value: str, typed: list[str]) -> bool:
    """Whether a typed word, two that a stray space parted, or a part of one lies within the allowed edits."""
    value = _squeeze(value)
    edits = min(limits().value_edits, len(value) - 1)
    candidates = [*typed, *(first + second for first, second in pairwise(typed))]
    for candidate in map(_squeeze, candidates):
        # the space between a word and its value may be missing, so the value may be a word's end or start
        parts = (candidate, candidate[-len(value) :], candidate[: len(value)])
        if any(OSA.distance(value, part, score_cutoff=edits) <= edits for part in parts):
            return True
    return False


def _squeeze(text: str) -> str:
    """Without blanks and quotes, with one kind of slash."""
    return _SPACES_AND_QUOTES.sub("", text).replace("\\", "/")


def syntax(row: Row, max_chars: int) -> Iterator[str]:
    """An answer parses in its shell."""
    if row.kind in limits().no_command_kinds:
        return
    for answer in row.answers:
        if not read_answer(row.shell, answer).parses:
            yield f"the answer is no valid {row.shell}" + (f": {answer}" if answer != row.after else "")


def edits(row: Row, max_chars: int) -> Iterator[str]:
    """The answer is no further from the typed line than a mistake of that kind leads."""
    if row.family == _REQUEST or row.before == row.after or row.results:
        return
    before, after, most = latin(row.before).casefold(), row.after.casefold(), limits().slip_edits
    if row.kind in limits().slip_kinds and OSA.distance(before, after, score_cutoff=most) > most:
        yield f"more than {most} characters differ, which is no {row.kind}"
    relation = _RELATIONS.get(row.kind)
    if relation is not None and not relation(row.before, row.after):
        yield f"the words that differ are no {row.kind}"


_RELATIONS: dict[str, Callable[[str, str], bool]] = {
    "word_order": lambda before, after: sorted(before.split()) == sorted(after.split()),
    "doubled_word": lambda before, after: set(before.split()) == set(after.split()),
    "prompt_literal": lambda before, after: before.endswith(after),
}
"""Kinds of mistakes in whole words, and what holds of the two lines."""
Rule = Callable[[Row, int], Iterator[str]]
ROW_RULES: dict[str, Rule] = {
    "schema": schema,
    "danger": danger,
    "private": private,
    "null": null,
    "leftover": leftover,
    "invented": invented,
    "mistyped": mistyped,
    "fixable": fixable,
    "foreign": foreign,
    "syntax": syntax,
    "form": form,
    "meta": meta,
}


def check_row(row: Row, max_chars: int) -> Iterator[Finding]:
    """Every broken rule of one row; how far its texts are apart counts where nothing else is wrong with it."""
    is_clean = True
    for rule, check in ROW_RULES.items():
        for message in check(row, max_chars):
            is_clean = False
            yield row.finding(rule, message)
    if is_clean:
        yield from (row.finding("edits", message) for message in edits(row, max_chars))
