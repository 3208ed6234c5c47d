"""Cases a second that `stages.evaluate` answers, against one request at a time and one process a case.

Run by hand from the repository's root, after `dvc repro`: `python -m benchmarks.evaluation`. All ways ask the
same quant, in turns, so that a busy machine slows all of them. `evaluate` answers `--cases` cases of the test
split; the two others are so slow that they answer a random `--sample` of these, and cases a second are compared.
Starting the server is not counted, as it is spread over a whole test split; a process a case must load the model
each time, which is the point. Prints a table and JSON; takes six minutes for the size 135m on two cores.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from stages.common.chat import DECODING
from stages.common.cli import run_stage
from stages.common.config import evaluate_params, model_paths, seed, task
from stages.common.files import read_json
from stages.common.llama_cpp import llama_cpp_environment, tool
from stages.common.paths import CACHE, TEST
from stages.common.processes import run_tool
from stages.common.server import serve
from stages.evaluate import context_for, predict, read_cases
from stages.measuring.scores import Case

ROUNDS = 3


def one_process(executable: Path, model: Path, case: Case, max_tokens: int) -> None:
    """Answer one case as a command-line client without a server does."""
    run_tool(
        [
            *(executable, "--model", model, "--prompt", case.prompt, "--predict", str(max_tokens), "--temp", "0"),
            *("--no-conversation", "--no-display-prompt", "--ctx-size", str(context_for([case], max_tokens))),
            *("--threads", str(len(os.sched_getaffinity(0)))),
        ],
        what="answering one case in a process of its own",
        env=llama_cpp_environment(),
    )


def alternate(ways: dict[str, tuple[Callable[[Sequence[Case]], object], Sequence[Case]]]) -> dict[str, float]:
    """Cases a second of each way, over rounds in which every way answers an equal part of its cases."""
    seconds = dict.fromkeys(ways, 0.0)
    with tqdm(total=ROUNDS * len(ways), desc="rounds x ways") as bar:
        for number in range(ROUNDS):
            for name, (way, cases) in ways.items():
                started = time.perf_counter()
                way(cases[number::ROUNDS])
                seconds[name] += time.perf_counter() - started
                bar.update()
    return {name: len(cases) / seconds[name] for name, (_, cases) in ways.items()}


def report(rates: dict[str, float], cases: int) -> str:
    """The table and, below it, the same as JSON; the first way is the one the others are compared with."""
    ours = next(iter(rates.values()))
    lines = [f"{'way':32} {'cases/s':>8} {'ours is faster by':>18}"]
    lines += [f"{name:32} {rate:8.2f} {ours / rate:17.1f}x" for name, rate in rates.items()]
    figures = {
        name: {"cases_per_s": round(rate, 3), "ours_is_faster_by": round(ours / rate, 2)}
        for name, rate in rates.items()
    }
    return "\n".join([*lines, json.dumps({"cases": cases, "ways": figures})])


def main() -> None:
    """Measure the first quant of the size in hand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=900, help="cases of the test split (default: 900)")
    parser.add_argument(
        "--sample", type=int, default=120, help="how many of them the slow ways answer (default: 120)"
    )
    wanted = parser.parse_args()
    params, decoding = evaluate_params(), DECODING[task()]
    paths = model_paths()
    model = paths.quants / next(iter(read_json(paths.quants / "quants.json").values()))
    cases = read_cases(TEST, wanted.cases, seed(), task())
    sample = random.Random(seed()).sample(cases, min(wanted.sample, len(cases)))
    completion = tool("llama-completion")
    log = CACHE / "logs/benchmark-llama-server.log"
    context = context_for(cases, decoding.max_tokens)
    with serve(tool("llama-server"), model, slots=params.slots, context=context, log=log) as server:

        def evaluated(share: Sequence[Case]) -> None:
            predict(server, share, "evaluate")

        def one_at_a_time(share: Sequence[Case]) -> None:
            for case in share:
                server.complete(case.prompt, decoding, reuse_prefix=False)

        def one_process_each(share: Sequence[Case]) -> None:
            for case in share:
                one_process(completion, model, case, decoding.max_tokens)

        rates = alternate(
            {
                f"evaluate ({params.slots} slots)": (evaluated, cases),
                "one request at a time": (one_at_a_time, sample),
                "one process a case": (one_process_each, sample),
            }
        )
    print(report(rates, len(cases)))


if __name__ == "__main__":
    run_stage("benchmark", main)
