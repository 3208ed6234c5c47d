"""Ask every quant what the clients would ask, and count how often it is right.

In: models/<size>/<task>/quants, data/dataset/{test,heldout}.jsonl, the golden cases, data/promised.yaml, `task`,
`evaluate` and `seed` of params.yaml, `left_as_typed` of configs/<size>.yaml.
Out: metrics/<size>/<task>/eval.json, models/<size>/<task>/predictions/<quant>.jsonl (what was asked, expected and
answered), and of the first quant plots/<size>/<task>/eval/by_{shell,family,kind}.csv and golden_by_family.csv.
Alone: `python -m stages.evaluate`; the server's log is then in .cache/logs/.

An answer is right if it is the expected command, or one that the row calls as right, to the byte, trailing blanks
aside; where the size is meant to leave the line as typed (`left_as_typed`), so is the typed line. Latency is that
of one request after another, each of which pays for its whole prompt, as a client's first request does; between
them a yardstick tells how slow the machine is at that moment (`machine_slowness`).
"""

import csv
import json
import random
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.common.chat import CORRECT, DECODING, Decoding, parse_user_text
from stages.common.cli import run_stage
from stages.common.config import EvaluateParams, evaluate_params, left_as_typed, model_paths, seed, task
from stages.common.errors import PipelineError
from stages.common.files import read_json_object, read_jsonl, replace_directory, replace_file, write_json
from stages.common.golden import golden_cases
from stages.common.llama_cpp import tool
from stages.common.metrics import percentile
from stages.common.paths import CACHE, HELDOUT, TEST
from stages.common.progress import AnswerBar
from stages.common.promised import promises
from stages.common.server import LlamaServer, serve
from stages.measuring.scores import UNFIXABLE, Case, Prediction, by, figures, meant, proportions, table
from stages.measuring.yardstick import Yardstick, slowness

_WARM_UP_REQUESTS = 3


def read_cases(
    path: Path, limit: int | None, seed: int, task: str = CORRECT, left: Collection[str] = ()
) -> list[Case]:
    """The cases of a split, or of those that the size is meant to correct a sample of `limit`, drawn by the seed.

    `left`: the families that the size is meant to leave as typed. They are few, and all of them are asked.
    """
    cases = []
    for line, row in read_jsonl(path):
        try:
            _, user, assistant = (message["content"] for message in row["messages"])
            command, results = parse_user_text(task, user)
            meta = {key: row["meta"][key] for key in ("shell", "family", "kind", "tool", "source", "group")}
        except (KeyError, TypeError, ValueError):
            raise PipelineError(f"{path}:{line}: not a row of a dataset; run `dvc repro validate`") from None
        accept = tuple(row["meta"].get("accept", ()))
        cases.append(Case(command, assistant, meta, accept, task, results, meta["family"] in left))
    to_correct = [case for case in cases if not case.is_left]
    if limit is None or limit >= len(to_correct):
        return cases
    return random.Random(seed).sample(to_correct, limit) + [case for case in cases if case.is_left]


def read_golden(task: str = CORRECT, left: Collection[str] = ()) -> list[Case]:
    """The golden cases; they have no kind of mistake, tool or group, and no tool has said anything of them."""
    return [
        Case(
            golden.typed,
            golden.accept[0],
            {"shell": golden.shell, "family": golden.family},
            golden.accept[1:],
            task,
            is_left=golden.family in left,
        )
        for golden in golden_cases()
    ]


def read_promised(task: str = CORRECT) -> list[Case]:
    """What the clients' documentation promises, in every shell for which it does."""
    return [
        Case(line.typed, line.answer, {"shell": shell, "family": "promised"}, task=task)
        for shell, line in promises().in_shells()
    ]


def predict(server: LlamaServer, cases: Sequence[Case], description: str) -> list[Prediction]:
    """The answers to all cases, in their order, asked many at a time."""
    # neighbours share more than the system prompt, and a slot keeps what a prompt shares with its predecessor
    order = sorted(range(len(cases)), key=lambda index: cases[index].prompt)
    with AnswerBar(total=len(cases), desc=description, unit=" cases", warm_up=server.in_flight) as bar:
        prompts = [cases[index].prompt for index in order]
        answers = server.complete_all(prompts, _decoding(cases), on_answer=lambda: bar.update())
    answer_of = dict(zip(order, answers, strict=True))
    return [
        Prediction(case, answer_of[index].text.rstrip(), answer_of[index].cut_off)
        for index, case in enumerate(cases)
    ]


def measure_latency(
    server: LlamaServer, cases: Sequence[Case], params: EvaluateParams, seed: int
) -> tuple[list[float], float]:
    """Milliseconds of single requests, one after another, for a sample of the cases; how slow the machine was."""
    sample = random.Random(seed).sample(cases, min(params.latency_requests, len(cases)))
    for case in sample[:_WARM_UP_REQUESTS]:
        server.complete(case.prompt, _decoding(cases), reuse_prefix=False)
    yardstick = Yardstick()
    yardstick.measure()
    latencies, yards = [], []
    for case in tqdm(sample, desc="latency", unit=" requests"):
        started = time.perf_counter()
        server.complete(case.prompt, _decoding(cases), reuse_prefix=False)
        latencies.append(1000 * (time.perf_counter() - started))
        yards.append(yardstick.measure())
    return latencies, slowness(yards)


def _decoding(cases: Sequence[Case]) -> Decoding:
    """That of the one client that all cases are of."""
    return DECODING[cases[0].task]


def evaluate(
    executable: Path, model: Path, splits: Mapping[str, Sequence[Case]], params: EvaluateParams, seed: int
) -> tuple[dict[str, Any], dict[str, list[Prediction]]]:
    """One quant's figures and its answers; `splits` are `test`, `heldout`, `golden` and `promised`."""
    log = CACHE / "logs" / f"llama-server-{model.stem}.log"
    everything = [case for cases in splits.values() for case in cases]
    context = context_for(everything, _decoding(everything).max_tokens)
    with serve(executable, model, slots=params.slots, context=context, log=log) as server:
        latencies, slow = measure_latency(server, splits["test"], params, seed)
        answered = iter(predict(server, everything, model.stem))
        load_ms = server.load_ms
    predictions = {name: list(islice(answered, len(cases))) for name, cases in splits.items()}
    found = {
        **figures(proportions(predictions)),
        "latency_p50_ms": round(percentile(latencies, 50), 1),
        "latency_p95_ms": round(percentile(latencies, 95), 1),
        "machine_slowness": round(slow, 2),
        "load_ms": round(load_ms, 1),
        "file_mb": round(model.stat().st_size / 1e6, 1),
    }
    found["samples"].append({"figure": "latency", "n": len(latencies)})
    return found, predictions


def context_for(cases: Iterable[Case], max_tokens: int) -> int:
    """Tokens that hold any of the cases and its answer: a byte-level tokenizer makes no more tokens than bytes."""
    longest = max(len(case.prompt.encode()) for case in cases)
    return -(-(longest + max_tokens) // 256) * 256


def write_predictions(path: Path, predictions: Mapping[str, Iterable[Prediction]]) -> None:
    """One line a case: what was asked, expected and answered, whether that is right, and where it comes from."""
    with replace_file(path) as file:
        for split, answers in predictions.items():
            for prediction in answers:
                file.write(_prediction_line(split, prediction))


def _prediction_line(split: str, prediction: Prediction) -> str:
    row = {
        "input": prediction.case.command,
        "expected": prediction.case.expected,
        **({"accept": prediction.case.accept} if prediction.case.accept else {}),
        **({"left_as_typed": True} if prediction.case.is_left else {}),
        "predicted": prediction.answer,
        "exact": prediction.is_exact,
        **({"cut_off": True} if prediction.cut_off else {}),
        "added_danger": prediction.added_danger,
        "split": split,
        "meta": prediction.case.meta,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def write_plots(folder: Path, predictions: Mapping[str, Sequence[Prediction]]) -> None:
    """Exact match by shell, by family (also of the golden cases) and by kind of mistake, a CSV each.

    Shells are compared by the lines that the size is meant to correct; elsewhere those left as typed have lines of
    their own.
    """
    test = predictions["test"]
    tables = {
        "by_shell": by("shell", meant(test)),
        "by_family": by("family", test),
        "by_kind": by("kind", test),
        "golden_by_family": by("family", predictions["golden"]),
    }
    with replace_directory(folder) as plots:
        for name, groups in tables.items():
            with replace_file(plots / f"{name}.csv") as file:
                rows = csv.DictWriter(file, ["name", "exact_match", "n", "low", "high"], lineterminator="\n")
                rows.writeheader()
                rows.writerows(table(groups))


def main() -> None:
    """Evaluate each quant of the size in hand and write figures, predictions and plots."""
    params, paths = evaluate_params(), model_paths()
    left = {*left_as_typed(), UNFIXABLE}
    splits = {
        "test": read_cases(TEST, params.test_rows, seed(), task(), left),
        "heldout": read_cases(HELDOUT, params.heldout_rows, seed(), task(), left),
        "golden": read_golden(task(), left),
        "promised": read_promised(task()),
    }
    if not splits["test"]:
        raise PipelineError(f"{TEST}: no rows to evaluate; run `dvc repro validate`")
    quants: dict[str, str] = read_json_object(paths.quants / "quants.json")
    found = {}
    plotted: dict[str, list[Prediction]] = {}
    with replace_directory(paths.predictions) as predictions:
        for quant, file in quants.items():
            found[quant], answers = evaluate(tool("llama-server"), paths.quants / file, splits, params, seed())
            write_predictions(predictions / f"{quant}.jsonl", answers)
            plotted = plotted or answers
    write_plots(paths.plots / "eval", plotted)
    write_json(paths.metrics / "eval.json", found)


if __name__ == "__main__":
    run_stage("evaluate", main)
