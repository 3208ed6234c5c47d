"""One shell's examples: a correct line is drawn, a mistake is made in it, and the pair is checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from random import Random
from typing import Any

from stages.common.chat import CORRECT, WIT, ToolResult
from stages.common.config import ALWAYS_AS_TYPED, DataParams
from stages.common.danger import added_danger
from stages.common.grammar import Grammar, system_of
from stages.common.lines import COMMAND, SUBCOMMAND, Word, annotate
from stages.common.words import blanks_once
from stages.generating.candidates import Candidates
from stages.generating.commands import Draw, Slots, Weighted
from stages.generating.mistakes import SINGLE, TWO_OPERATIONS, Typist
from stages.generating.requests import Requests
from stages.generating.skeleton import group_key, mask, named_key
from stages.generating.slips import Slips
from stages.generating.sources import CommandPopularity, CorrectLines, known_components
from stages.generating.tables import Tables
from stages.generating.tool_results import tool_results
from stages.generating.typos import Typos
from stages.generating.unfixable import GIBBERISH, unfixable
from stages.generating.wrong_options import WrongOptions, synonym_table

NONE = "none"
UNFIXABLE = "unfixable"
TYPO = "typo"  # in data/slips.yaml: one of the typing kinds
_TYPING = (*SINGLE, TWO_OPERATIONS)
Mistake = Callable[[Random], str | None]
"""Gives what is typed for a correct line; None where the mistake cannot be made there, or not be undone."""
_ROLES = ("command", "subcommand", "option")
"""The families whose typos a chained line may carry too."""


@dataclass(frozen=True)
class Example:
    """What is typed, what is right, what else would be, and what the row says about them."""

    typed: str
    answer: str
    kind: str
    tool: str
    source: str
    group: str
    accept: tuple[str, ...] = ()
    results: tuple[ToolResult, ...] = ()
    """What tools said of it, for the task `wit`."""


@dataclass(frozen=True)
class Mistaken:
    """A correct line, what was typed for it, the group where the texts alone do not tell it, other answers."""

    typed: str
    draw: Draw
    words: Sequence[Word]
    group: str | None = None
    accept: tuple[str, ...] = ()


class ShellGenerator:
    """Makes the examples of one shell, none twice."""

    def __init__(
        self,
        grammar: Grammar,
        tables: Tables,
        params: DataParams,
        seed: int,
        kept_back: frozenset[str] = frozenset(),
        task: str = CORRECT,
    ) -> None:
        """`kept_back`: typed lines, blanks counted once, that no row may have; `task`: one of `chat.TASKS`."""
        self._grammar, self._params = grammar, params
        self._origins: Counter[str] = Counter()
        self._shell, self._table = grammar.shell, tables.sampling
        self._seed = f"{seed}:{grammar.shell}"
        self._any = Random(0)  # where what is drawn has no say
        self._rng = Random()  # seeded anew for every row; to make one costs twice as much
        of_shell = params.rows * params.shells[self._shell]
        self._most_of_template = max(self._table["template_share_max"] * of_shell, 1)
        self._annotate = lru_cache(maxsize=1 << 16)(lambda line: tuple(annotate(line, grammar)))
        self._runs_heldout = lru_cache(maxsize=1 << 16)(
            lambda line: any(self._lines.is_heldout(word.text) for word in self._annotate(line))
        )
        popularity = CommandPopularity(grammar, tables)
        typist = Typist.from_table(tables.mistakes)
        commands = Candidates.of(popularity.of_commands(), fold=grammar.fold)
        self._tool_results = tool_results(grammar, tables, popularity) if task == WIT else None
        self._typos = Typos(
            grammar,
            typist,
            tables.mistakes,
            commands,
            Candidates.of(known_components(tables, self._shell), fold=grammar.fold),
            popularity.after,
        )
        protected = frozenset(tables.mistakes["protected"])
        self._wrong_options = WrongOptions(
            grammar,
            synonym_table(tables, grammar),
            tables.mistakes["real_flags"],
            protected,
            frozenset(tables.mistakes["only_slashes"]),
        )
        self._slips = Slips(tables.slips, grammar)
        self._requests = Requests(tables.requests, self._shell, tables.slots, tables.sampling["requests"], typist)
        self._unfixable = unfixable(tables, grammar, popularity)
        self._wrong_subcommands = _inverted(tables.wrong_subcommands)
        self._slots = Slots(tables.slots)
        self._sample = lru_cache(maxsize=None)(self._sampled)
        self._lines = CorrectLines(grammar, popularity, tables, params, self._offers)
        self._kinds = Kinds(
            tables.mistakes,
            tables.slips["weights"],
            tables.unfixable["kinds"],
            system_of(self._shell),
            {kind for kind in tables.slips["rewrites"] if not self._lines.fitting("chain", kind)},
        )
        self._typed = set(kept_back)

    def example(self, family: str, index: int) -> Example | None:
        """The example of that family and index; None when no attempt gave a new one that can be undone."""
        rng = self._rng
        rng.seed(f"{self._seed}:{family}:{index}")
        kind = self._kinds.draw(family, rng)
        is_heldout = self._lines.has_heldout and rng.random() < self._table["heldout_share"]
        for attempt in range(self._table["attempts"]):
            if attempt >= self._table["attempts_same_kind"]:
                kind, is_heldout = self._kinds.draw(family, rng), False
            made = self._made(family, kind, is_heldout, rng)
            if made is not None and self._is_new_and_safe(family, made):
                return self._accept(kind, made, rng)
        return None

    def _made(self, family: str, kind: str, is_heldout: bool, rng: Random) -> Mistaken | None:
        """What is typed, and for what; None where the draw came to nothing."""
        if family == "request":
            return self._request(kind, rng)
        if family == UNFIXABLE:
            return self._left_alone(kind, rng)
        return self._line(family, kind, is_heldout, rng)

    def _offers(self, family: str, kind: str, template: str) -> bool:
        """Whether a line of that template may have a place for the mistake."""
        return self._has_place(family, kind, *self._sample(template))

    def _sampled(self, template: str) -> tuple[str, Sequence[Word]]:
        """One line of a template, and its words."""
        line = self._slots.fill(template, Random(0))
        return line, self._annotate(line)

    def _has_place(self, family: str, kind: str, line: str, words: Sequence[Word]) -> bool:
        if kind == NONE or family == "path":  # what a path offers hangs on the values
            return True
        if self._slips.knows(kind):
            return self._slips.has_place(kind, line, words)
        if family == "wrong_option":
            return self._wrong_options.has_place(kind, words)
        if kind == "wrong_subcommand":
            return self._wrong_subcommand(line, words, self._any) is not None
        return any(self._typos.places(role, kind, words) for role in self._roles(family))

    @staticmethod
    def _roles(family: str) -> Sequence[str]:
        """The roles of words of which a row of that family may have a typo."""
        return _ROLES if family in ("chain", "syntax") else (family,)

    def _line(self, family: str, kind: str, is_heldout: bool, rng: Random) -> Mistaken | None:
        """A correct line, and what was typed for it."""
        draw = self._drawn(family, kind, is_heldout, rng)
        if draw is None or not self._has_room(draw):
            return None
        words = self._annotate(draw.line)
        if not is_heldout and self._runs_heldout(draw.line):
            return None
        if kind == NONE:
            return Mistaken(draw.line, draw, words)
        if self._slips.knows(kind):
            slip = self._slips.make(kind, draw.line, words, rng)
            if slip is None:
                return None
            group = named_key(mask(words, self._grammar), slip.group) if slip.group else None
            return Mistaken(slip.typed, draw, words, group, slip.accept)
        mistaken = self._mistaken(family, kind, draw.line, words)
        for _ in range(self._table["attempts_same_line"]):
            typed = mistaken(rng)
            if typed is not None and blanks_once(typed) not in self._typed:
                return Mistaken(typed, draw, words)
        return None

    def _drawn(self, family: str, kind: str, is_heldout: bool, rng: Random) -> Draw | None:
        if is_heldout:
            return self._lines.draw_heldout(rng)
        return self._lines.draw(family, TYPO if kind in _TYPING else kind, rng)

    def _request(self, kind: str, rng: Random) -> Mistaken | None:
        """A request in plain words, and the command that answers it."""
        request = self._requests.draw(kind, rng)
        if request is None:
            return None
        draw = Draw(request.answer, request.origin[1])
        words = self._annotate(draw.line)
        if not self._has_room(draw) or self._runs_heldout(draw.line):
            return None
        return Mistaken(request.asked, draw, words, named_key(*request.origin), request.accept)

    def _left_alone(self, kind: str, rng: Random) -> Mistaken | None:
        """A line that nobody could fix."""
        draw = self._unfixable.draw(kind, rng)
        if draw is None or not self._has_room(draw):
            return None
        first = draw.line.split()[0]
        words = (Word(first, 0, len(first), COMMAND),)  # no grammar has more to say of it
        # lines of one template, whatever their words, stay in one split
        group = named_key(draw.origin, kind) if kind == GIBBERISH else None
        return Mistaken(draw.line, draw, words, group)

    def _has_room(self, draw: Draw) -> bool:
        """Whether the line is short enough and its template not yet in too many of the shell's rows."""
        return len(draw.line) <= self._params.max_chars and self._origins[draw.origin] < self._most_of_template

    def _mistaken(self, family: str, kind: str, line: str, words: Sequence[Word]) -> Mistake:
        """What makes such a mistake in the line, another one at each call."""
        if family == "wrong_option":
            return partial(self._wrong_options.make, kind, line, words)
        if kind == "wrong_subcommand":
            return partial(self._wrong_subcommand, line, words)
        roles = self._roles(family)
        places: dict[str, Sequence[Any]] = {}

        def typo(rng: Random) -> str | None:
            role = rng.choice(roles)
            if role not in places:
                places[role] = self._typos.places(role, kind, words)
            return self._typos.make(role, kind, line, places[role], rng)

        return typo

    def _wrong_subcommand(self, line: str, words: Sequence[Word], rng: Random) -> str | None:
        """A synonym of the subcommand, or of the words it is the first of (`run build` typed as `build`)."""
        for at, word in enumerate(words):
            if word.role != SUBCOMMAND or len(word.nodes) != 1:
                continue
            for length in (2, 1):
                phrase = words[at : at + length]
                right = line[phrase[0].start : phrase[-1].end]
                known = word.nodes[0].subcommands
                found = [
                    typed for typed in self._wrong_subcommands.get((word.tool, right), ()) if typed not in known
                ]
                if found:
                    return line[: word.start] + rng.choice(found) + line[phrase[-1].end :]
        return None

    def _is_new_and_safe(self, family: str, made: Mistaken) -> bool:
        typed, answer = made.typed, made.draw.line
        if blanks_once(typed) in self._typed or typed != typed.strip() or len(typed) > self._params.max_chars:
            return False
        if len(answer) > self._params.max_chars or (typed == answer) != (family in ALWAYS_AS_TYPED):
            return False
        return not added_danger(self._shell, typed, answer)

    def _accept(self, kind: str, made: Mistaken, rng: Random) -> Example:
        self._typed.add(blanks_once(made.typed))
        self._origins[made.draw.origin] += 1
        main = self._main_command(made.words)
        node = main.nodes[0] if main.nodes else None
        answer = made.draw.line
        return Example(
            typed=made.typed,
            answer=answer,
            kind=kind,
            tool=node.name if node else main.text,
            source=node.source if node else "hand",
            group=made.group or group_key(made.typed, answer, made.words, self._grammar),
            accept=tuple(other for other in made.accept if other != answer),
            results=self._tool_results.draw(made.typed, made.words, rng) if self._tool_results else (),
        )

    def _main_command(self, words: Sequence[Word]) -> Word:
        """The tool kept out of training if there is one, else the first command that runs no other."""
        commands = [word for word in words if word.role == COMMAND]
        for word in commands:
            if self._lines.is_heldout(word.text):
                return word
        for word in commands:
            if word.tool and word.tool not in self._grammar.wrappers.names:
                return word
        return commands[0] if commands else words[0]


class Kinds:
    """Which kind of mistake a row gets, by family."""

    def __init__(
        self,
        table: Mapping[str, Any],
        slips: Mapping[str, Any],
        unfixable: Mapping[str, float],
        system: str,
        impossible: set[str],
    ) -> None:
        """`impossible`: kinds of slips for which the shell has no line."""
        self._typing = Weighted(table["weights"])
        self._typed = Weighted({kind: table["weights"][kind] for kind in _TYPING})
        structural = {**table["structural"], **table["structural_by_shell"].get(system, {})}
        self._structural = {family: Weighted(kinds) for family, kinds in structural.items()}
        self._wrong_option = Weighted(table["wrong_option"][system])
        self._unfixable = Weighted(unfixable)
        self._slips = {
            family: Weighted({k: weight for k, weight in systems[system].items() if k not in impossible})
            for family, systems in slips.items()
        }

    def draw(self, family: str, rng: Random) -> str:
        """A kind, in the shares of `data/mistakes.yaml` and `data/slips.yaml`."""
        if family == "correct":
            return NONE
        if family == UNFIXABLE:
            return self._unfixable.draw(rng)
        if family == "wrong_option":
            return self._wrong_option.draw(rng)
        if family in self._slips:
            kind = self._slips[family].draw(rng)
            return self._typed.draw(rng) if kind == TYPO else kind
        kind = self._typing.draw(rng)
        return self._structural[family].draw(rng) if kind == "structural" else kind


def _inverted(table: Mapping[str, Mapping[str, str]]) -> dict[tuple[str, str], list[str]]:
    """(tool, right) -> what is typed for it, out of tool -> {typed: right}."""
    found: dict[tuple[str, str], list[str]] = {}
    for tool, pairs in table.items():
        for wrong, right in pairs.items():
            found.setdefault((tool, right), []).append(wrong)
    return found
