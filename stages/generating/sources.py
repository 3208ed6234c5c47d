"""Where one shell's correct lines come from, and how popular its words are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random

from stages.common.config import DataParams
from stages.common.danger import danger_table, find_dangers
from stages.common.grammar import Grammar, system_of
from stages.common.lines import FLAGS, OPERATOR, OPTION, SUBCOMMAND, Word, annotate, arguments
from stages.generating.commands import REPEATS, Draw, Everyday, FromGrammar, Slots, is_chained
from stages.generating.tables import Tables, chained_lines, command_weights, everyday_lines


class CommandPopularity:
    """How likely a command, or a word after it, is in one shell: by its weight or by its everyday lines."""

    def __init__(self, grammar: Grammar, tables: Tables) -> None:
        self._grammar = grammar
        is_posix = system_of(grammar.shell) == "posix"
        self._added = tables.mistakes["shell_aliases" if is_posix else "installed_on_windows"]
        self.weights, self.shares = command_weights(tables, grammar.shell)
        self._least = min(self.weights.values(), default=1.0) / 4
        self.counts: Counter[tuple[str, ...]] = Counter()
        """How many everyday lines have an option or a subcommand: (tool, ..., word) -> lines."""
        self.bare: set[tuple[str, ...]] = set()
        """What stands in an everyday line without an argument: (tool, ..., option), and with "" for no option."""
        slots, rng = Slots(tables.slots), Random(0)
        for lines in everyday_lines(tables, grammar.shell).values():
            for line in lines:
                self._read(annotate(slots.fill(line, rng), grammar))

    def _read(self, words: Sequence[Word]) -> None:
        """Take notes of an everyday line."""
        for word in words:
            if word.role in (OPTION, SUBCOMMAND) and word.nodes:
                self.counts[(*(node.name for node in word.nodes), self._name(word).lower())] += 1
        given = any(word.nodes for word in arguments(words, self._grammar))
        if given or not words[-1].nodes or any(word.role == OPERATOR for word in words):
            return
        place = [node.name for node in words[-1].nodes]
        if words[-1].role == SUBCOMMAND:
            place.append(words[-1].text)
        options = [self._name(word) for word in words if word.role in (OPTION, FLAGS)]
        self.bare.update((*place, option) for option in options or [""])

    def _name(self, word: Word) -> str:
        """The word without the value that an option has."""
        return word.text.partition(self._grammar.value_separator(word.text))[0]

    def after(self, path: tuple[str, ...], word: str) -> float:
        """The popularity of a subcommand or an option after a path such as ("git", "commit")."""
        share = self.shares.get(path[0], {}).get(word, 0.0) if len(path) == 1 else 0.0
        return max(share, 1.0 + 5.0 * self.counts[(*path, word.lower())])

    def of_commands(self) -> dict[str, float]:
        """Every command a reader would think of; those without a weight count little."""
        names = dict.fromkeys(self.weights)
        if system_of(self._grammar.shell) == "posix":
            names |= dict.fromkeys(self._grammar.commands)
        else:
            native = ("cmd", "psscriptanalyzer")
            names |= {key: None for key, node in self._grammar.commands.items() if node.source in native}
        names |= dict.fromkeys(self._added)
        return {name: self.weights.get(name, self._least) for name in names}


Offers = Callable[[str, str, str], bool]
"""Whether, for a family and a kind of mistake, a template offers a place for it."""


class CorrectLines:
    """Draws the correct lines of one shell, by the family of example they are for and the mistake to be made."""

    def __init__(
        self,
        grammar: Grammar,
        popularity: CommandPopularity,
        tables: Tables,
        params: DataParams,
        offers: Offers,
    ) -> None:
        self._table, self._params, self._offers = tables.sampling, params, offers
        self._heldout_names = {tool.lower() for tool in params.heldout_tools}
        system = system_of(grammar.shell)
        slots = Slots(tables.slots)
        templates = everyday_lines(tables, grammar.shell)
        weights, shares = command_weights(tables, grammar.shell, tables.sampling["popularity_power"])
        shares = {
            tool: {name: share ** tables.sampling["subcommand_power"] for name, share in of_tool.items()}
            for tool, of_tool in shares.items()
        }
        brevity = tables.sampling["brevity_chars"]
        dangers, rarely = danger_table(grammar.shell), tables.sampling["danger_share"]

        def factor(line: str) -> float:
            often = tables.sampling["repeating_factor"] if REPEATS in line else 1.0
            return often * (rarely if find_dangers(dangers, line) else 1.0)

        def everyday(lines: Mapping[str, Sequence[str]]) -> Everyday:
            return Everyday.by_tool(lines, weights, shares, slots, brevity)

        ours = {tool: lines for tool, lines in templates.items() if not self.is_heldout(tool)}
        self._everyday = everyday(ours).scaled(factor)
        self._heldout = everyday({tool: lines for tool, lines in templates.items() if self.is_heldout(tool)})
        single = {tool: [line for line in lines if not is_chained(line)] for tool, lines in ours.items()}
        self._from_grammar = FromGrammar(
            grammar,
            weights,
            shares,
            slots,
            tables.sampling,
            popularity.counts,
            popularity.bare,
            {tool: everyday({tool: lines}) for tool, lines in single.items() if lines},
        )
        paths = tables.known_paths[_path_system(system)]
        known = Slots(
            {
                "file": paths["files"],
                "folder": paths["folders"],
                "project": tables.known_paths["project"],
                **{slot: paths[slot] for slot in ("system", "log", "own")},
            }
        )
        self._known_paths = Everyday.alike(tables.known_paths[system]["lines"], known)
        values = Slots({key: tables.sampling[key] for key in ("name", "own", "word", "capital")})
        self._project = Everyday.alike(tables.sampling["project"][system], values)
        self._chained = Everyday.alike(chained_lines(tables, grammar.shell), slots, brevity).scaled(factor)
        self._fitting: dict[tuple[str, str], Everyday] = {}

    def is_heldout(self, word: str) -> bool:
        """Whether a word is a tool kept out of training."""
        return word.lower() in self._heldout_names

    @property
    def has_heldout(self) -> bool:
        """Whether this shell has everyday lines of tools kept out of training."""
        return bool(self._heldout)

    def draw_heldout(self, rng: Random) -> Draw:
        """A line of a tool kept out of training."""
        return self._heldout.draw(rng)

    def draw(self, family: str, kind: str, rng: Random) -> Draw | None:
        """A line of any other tool; None where the draw came to nothing or no line offers a place."""
        if family == "correct" and rng.random() < self._table["chain_share"]:
            return self._chained.draw(rng)
        if family == "path" and rng.random() < self._table["path_share"]:
            return self._known_paths.draw(rng)
        if family == "correct" and rng.random() < self._table["project_share"]:
            return self._project.draw(rng)
        share = self._params.grammar_share * self._table["grammar_share_of"].get(family, 1.0)
        if family not in ("path", "chain") and rng.random() < share:
            return self._from_grammar.draw(rng)
        lines = self.fitting(family, kind)
        return lines.draw(rng) if lines else None

    def fitting(self, family: str, kind: str) -> Everyday:
        """The everyday lines, or for a chain the chained ones, that offer a place for a kind of mistake."""
        if (family, kind) not in self._fitting:
            lines = self._chained if family == "chain" else self._everyday
            self._fitting[family, kind] = lines.only(lambda template: self._offers(family, kind, template))
        return self._fitting[family, kind]


def known_components(tables: Tables, shell: str) -> dict[str, float]:
    """The path components that everybody knows, each as likely as the other."""
    return dict.fromkeys(map(str, tables.known_paths[_path_system(system_of(shell))]["components"]), 1.0)


def _path_system(system: str) -> str:
    return "posix" if system == "posix" else "windows"
