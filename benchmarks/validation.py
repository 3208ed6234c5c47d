"""Rows validated a second by `stages.validate`, against the same checks in pandas and pandera.

Run by hand from the repository's root, after `python -m stages.generate`, with two packages of its own:

    pip install pandas==3.1.1 pandera==0.35.0
    python -m benchmarks.validation [--rows N] [--rounds N]

Both read the same file and hold every row to the rules of schema, metadata, null, form, leftovers, private data,
danger, invention, typos, language and syntax, and the rows together to those of duplicates, contradictions and
golden cases (pandas leaves out the newest: how far an answer is from what was typed, typographic characters, keys
that stand twice). What is a pattern or a comparison is a vectorized check there; danger, invention, typos, syntax
and whether the tool is one of the answer's are the same functions, called for each row. In turns; prints a table
and JSON.
"""

import argparse
import json
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from stages.common.chat import SHELLS, system_prompt
from stages.common.cli import run_stage
from stages.common.config import data_params
from stages.common.errors import PipelineError
from stages.common.golden import golden_inputs
from stages.common.paths import GENERATED
from stages.validate import read_and_check
from stages.validating import rules
from stages.validating.answers import read_answer
from stages.validating.limits import limits
from stages.validating.rows import Row

_CALLED = ("danger", "invented", "mistyped", "syntax", "meta")
"""Rules that are no pattern and no comparison."""


def ours(file: Path) -> int:
    """Findings of the stage's own code."""
    return len(read_and_check([file], data_params())[1])


def with_pandera(file: Path) -> int:
    """Failure cases of a pandera schema, and what pandas finds among the rows."""
    import pandas as pd
    import pandera.pandas as pa

    records = pd.read_json(file, lines=True, dtype=False)
    texts = pd.DataFrame(
        [[message["content"] for message in messages] for messages in records.pop("messages")],
        columns=["system", "before", "after"],
    )
    frame = texts.join(pd.DataFrame(list(records["meta"])))
    shapes = [*limits().leftovers.shapes.values(), *limits().private.shapes.values()]

    def plain(text: str) -> bool:
        return rules.SYMBOLS.isdisjoint(map(unicodedata.category, text))

    def clean(texts: pd.Series) -> pd.Series:
        good = ~texts.str.contains(rules.CONTROL.pattern, regex=True) & (texts == texts.str.normalize("NFC"))
        good &= texts == texts.str.strip()
        beyond = texts[~texts.str.isascii()]
        good[beyond.index] &= beyond.map(
            lambda text: rules.SYMBOLS.isdisjoint(map(unicodedata.category, text))
        ).astype(bool)
        for shape in shapes:
            suspect = texts.str.contains(shape.pattern.pattern, regex=True)
            good &= ~suspect | texts.where(suspect, "").map(lambda text, shape=shape: shape.find(text) is None)
        return good

    def by_row(rule: Callable) -> Callable:
        def check(frame: pd.DataFrame) -> pd.Series:
            said = frame[list(rules.META)].to_dict("records")
            texts = (frame[name] for name in ("shell", "before", "after"))
            found = [not any(rule(Row(file, 0, "", *parts), 0)) for parts in zip(said, *texts, strict=True)]
            return pd.Series(found, index=frame.index)

        return check

    golden = golden_inputs()

    def asked(frame: pd.DataFrame) -> pd.Series:
        return frame["before"].str.split().str.join(" ")

    def native(frame: pd.DataFrame) -> pd.Series:
        good = pd.Series(True, index=frame.index)
        for shell, of_shell in frame.groupby("shell")["after"]:
            good[of_shell.index] = ~of_shell.str.contains(limits().foreign[shell].pattern, regex=True)
        return good

    def more_than_form(frame: pd.DataFrame) -> pd.Series:
        before, after = (
            frame[name].str.casefold().str.replace(r"\s+", "", regex=True) for name in ("before", "after")
        )
        promised = ~frame["kind"].isin(limits().kinds_of_form) & (frame["before"] != frame["after"])
        return ~promised | (before != after)

    def null(frame: pd.DataFrame) -> pd.Series:
        return (frame["family"] == limits().unchanged_family) == (frame["before"] == frame["after"])

    def clean_as_typed(frame: pd.DataFrame) -> pd.Series:
        # a typo may hide the command that allows a shape, so what the answer keeps is no fault of the typed line
        good = clean(frame["before"])
        good[~good] = by_row(rules.ROW_RULES["leftover"])(frame[~good])
        return good

    length = pa.Check.str_length(1, data_params().max_chars)
    schema = pa.DataFrameSchema(
        {
            "system": pa.Column(str, pa.Check.isin([system_prompt(shell) for shell in SHELLS])),
            "before": pa.Column(str, length),
            "after": pa.Column(str, [pa.Check(clean), length]),
            "shell": pa.Column(str, pa.Check.isin(SHELLS)),
            "family": pa.Column(str, pa.Check.isin(sorted(limits().families))),
            "kind": pa.Column(str, pa.Check.isin(sorted(limits().kinds))),
            **{name: pa.Column(str, pa.Check.str_length(min_value=1)) for name in ("tool", "source", "group")},
        },
        checks=[
            pa.Check(null),
            pa.Check(clean_as_typed),
            pa.Check(native),
            pa.Check(more_than_form),
            *(pa.Check(by_row(rules.ROW_RULES[name])) for name in _CALLED),
            pa.Check(lambda frame: ~asked(frame).isin(golden)),
        ],
        unique=["shell", "before", "after"],
    )
    found = 0
    try:
        schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        found = len(error.failure_cases)
    answers = frame["after"].groupby([frame["shell"], asked(frame)])
    return found + int((answers.nunique() > 1).sum())


WAYS = {"stages.validate": ours, "pandas + pandera": with_pandera}


def report(seconds: dict[str, list[float]], rows: int) -> str:
    """A table and a line of JSON: rows a second by the best round of each way."""
    rates = {way: rows / min(times) for way, times in seconds.items()}
    lines = [f"{'way':20} {'rows/s':>10}"] + [f"{way:20} {rate:10.0f}" for way, rate in rates.items()]
    first, second = rates.values()
    return "\n".join([*lines, f"{first / second:.2f} times", json.dumps({"rows": rows, "rows_per_s": rates})])


def main() -> None:
    """Time both in turns and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=30000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    if find_spec("pandera") is None:
        raise PipelineError("pandera is not installed; pip install pandas==3.1.1 pandera==0.35.0")
    with tempfile.TemporaryDirectory() as folder, GENERATED.open("rb") as generated:
        file = Path(folder, "rows.jsonl")
        file.write_bytes(b"".join(islice(generated, asked.rows)))
        rows = file.read_bytes().count(b"\n")
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in tqdm(range(asked.rounds), desc="rounds"):
            for way, validate in WAYS.items():
                read_answer.cache_clear()  # what one way has read must not help the other
                begin = time.perf_counter()
                found = validate(file)
                seconds[way].append(time.perf_counter() - begin)
                if found:
                    print(f"{way}: {found} findings in rows that should have none", file=sys.stderr)
    print(report(seconds, rows))


if __name__ == "__main__":
    run_stage("benchmark-validation", main)
