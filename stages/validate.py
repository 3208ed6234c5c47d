"""Hold every row to the rules and split them into train, valid, test and held-out rows.

In: data/generated.jsonl, data/extra/*.jsonl (rows of your own, if any), params `task`, `data` and `seed`, the
limits in data/validation.yaml and data/danger.yaml, data/promised.yaml. Out:
data/dataset/{train,valid,test,heldout}.jsonl, metrics/data.json, the data card data/card.md, plots/data/*.csv.

    python -m stages.validate                  # the stage; a broken rule leaves the outputs as they were
    python -m stages.validate FILE [FILE ...]  # look at files alone, write no outputs; a row that the last run
                                               # has kept for its test is a finding too

A finding is `file:line: [rule] message: row`. The worst 50 are shown, all are in .cache/validate-report.jsonl.
The shares and the size are those of the generated rows; rows of your own come on top.
"""

import csv
import gc
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.common.cli import run_stage
from stages.common.config import DataParams, data_params, seed, task
from stages.common.files import read_yaml, replace_directory, replace_file, write_json
from stages.common.paths import (
    DATA_CARD,
    DATA_METRICS,
    DATA_PLOTS,
    DATASET,
    EXTRA,
    GENERATED,
    HELDOUT,
    MISTAKES,
    TEST,
)
from stages.common.promised import promises
from stages.validating import card
from stages.validating.collection import (
    check_operators,
    check_repetition,
    check_shares,
    check_size,
    exact_match_ceiling,
    find_contradictions,
    find_duplicates,
    find_golden,
    find_leaks,
)
from stages.validating.judging import read_and_judge
from stages.validating.known import Looked, check_heldout, check_known, grammars_by_system, look_up
from stages.validating.limits import limits
from stages.validating.report import figures, report
from stages.validating.rows import Finding, Row
from stages.validating.shells import check_with_shells
from stages.validating.split import check_splits, split_rows
from stages.validating.tally import Tally


def check_generated(rows: Sequence[Row], params: DataParams, task: str) -> list[Finding]:
    """What is wrong with the generated rows as a whole."""
    generated = [row for row in rows if row.task == task]
    wanted = {"shell": params.shells, "family": params.families}
    return [
        *check_size(GENERATED, generated, params.rows),
        *check_shares(GENERATED, generated, wanted),
        *check_repetition(generated),
        *check_operators(GENERATED, generated),
    ]


def read_and_check(files: Sequence[Path], params: DataParams) -> tuple[list[Row], list[Finding]]:
    """The rows of the files and everything that single rows and pairs of rows break."""
    rows, findings = read_and_judge(files, params.max_chars)
    return rows, [*findings, *find_duplicates(rows), *find_contradictions(rows), *find_golden(rows)]


def kept_back(max_chars: int) -> list[Row]:
    """The test and held-out rows of the last run, if there was one: no other file may hold them."""
    return read_and_judge([path for path in (TEST, HELDOUT) if path.is_file()], max_chars)[0]


def by_origin(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The generated rows, and those of other files."""
    generated: list[Row] = []
    others: list[Row] = []
    for row in rows:
        (generated if row.file == GENERATED else others).append(row)
    return generated, others


def without_own(rows: Sequence[Row]) -> list[Row]:
    """The rows of files that may not hold kept-back rows: not those splits themselves nor what they came from."""
    own = {path.resolve() for path in (GENERATED, TEST, HELDOUT, *EXTRA.glob("*.jsonl"))}
    strange = {file: file.resolve() not in own for file in {row.file for row in rows}}
    return [row for row in rows if strange[row.file]]


def write_splits(splits: Mapping[str, Sequence[Row]]) -> None:
    """Write all splits, or none."""
    with replace_directory(DATASET) as directory:
        for name, rows in splits.items():
            with (directory / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(f"{row.text}\n" for row in rows)


def write_card(
    splits: Mapping[str, Sequence[Row]],
    tallies: Mapping[str, Tally],
    looked: Looked,
    params: DataParams,
    seed: int,
) -> None:
    """Write the data card and what its plots are drawn from."""
    everything = sum(tallies.values(), Tally(()))
    weights = read_yaml(MISTAKES)["weights"]
    typing = {kind: weight for kind, weight in weights.items() if kind in limits().kinds}
    tables = {
        "Shells": card.asked_and_found(everything, "shell", params.shells),
        "Families": card.asked_and_found(everything, "family", params.families),
        "Typing mistakes": card.typing_mix(everything, typing),
        "Lengths": card.lengths(everything),
        "Operators of chained answers": card.operators(everything, limits().operator_shares),
        "All mistakes": card.kinds(everything),
        "Tools": card.tools(everything),
        "In no grammar": card.in_no_grammar(looked),
    }
    with replace_file(DATA_CARD) as file:
        file.write(card.card(splits, tallies, seed, tables))
    with replace_directory(DATA_PLOTS) as folder:
        for name, heading in (("typing", "Typing mistakes"), ("families", "Families"), ("lengths", "Lengths")):
            header, lines = tables[heading]
            with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([header, *lines])


def look_at(files: Sequence[Path], params: DataParams) -> None:
    """Judge files alone.

    Raises:
        PipelineError: a rule is broken, or a file holds no row.
    """
    rows, findings = read_and_check(files, params)
    looked = look_up(rows, grammars_by_system(), seed())
    findings += [*check_known(looked), *check_with_shells(rows, seed())]
    back = kept_back(params.max_chars)
    findings += find_leaks(without_own(rows), back, params.heldout_tools)
    seen = {row.file for row in rows} | {finding.file for finding in findings}
    findings += [Finding(file, 0, "size", "no rows", "an empty file") for file in files if file not in seen]
    report(findings)
    print(f"{len(rows)} rows, nothing wrong")
    for word, count in looked.words.most_common(limits().printed):
        print(f"in no grammar: {word} ({count} answers)")
    if not back:
        print("not compared with the test rows, of which there are none here; `dvc repro validate` makes them")


def main() -> None:
    """The stage, or with arguments a look at single files."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    # Rows hold no cycles, and looking for some in ever more rows would take a quarter of the time.
    gc.disable()
    limits(), grammars_by_system()  # before the processes that judge are forked, which then have them too
    params = data_params()
    report(list(check_heldout(params.heldout_tools, [line.answer for line in promises().lines])))
    if files := sys.argv[1:]:
        look_at([Path(file) for file in files], params)
        return
    rows, findings = read_and_check([GENERATED, *sorted(EXTRA.glob("*.jsonl"))], params)
    generated, yours = by_origin(rows)
    yours = [row for row in yours if row.task == task()]  # they may be for both tasks
    rows = [*generated, *yours]
    grammars = grammars_by_system()
    looked = look_up(generated, grammars, seed())
    findings += [*check_generated(generated, params, task()), *check_with_shells(rows, seed())]
    findings += [*check_known(looked), *check_known(look_up(yours, grammars, seed()))]
    report(findings)
    splits = split_rows(rows, seed(), params.heldout_tools)
    report(list(check_splits(GENERATED, splits)))
    write_splits(splits)
    tallies = {name: Tally(split) for name, split in splits.items()}
    write_card(splits, tallies, looked, params, seed())
    ceiling = exact_match_ceiling(splits["test"], rows)
    write_json(DATA_METRICS, figures(tallies, params.heldout_tools, looked.known_share, ceiling))


if __name__ == "__main__":
    run_stage("validate", main)
