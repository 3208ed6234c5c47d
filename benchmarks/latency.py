"""The latency of single requests on free cores and beside a busy loop, by how long llama.cpp's threads spin.

Run by hand from the repository's root, after `make repro`: `python -m benchmarks.latency`. For each count of spins
(`GOMP_SPINCOUNT`; the first is what the pipeline sets) the same requests are asked with and without a loop that
takes a core, and between them the yardstick is measured, as in `stages.evaluate`: the last column says how well it
follows. Prints a table; takes about a minute for the size 135m on two cores, much more where threads spin long.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from stages.common.cli import run_stage
from stages.common.config import evaluate_params, model_paths, seed, task
from stages.common.files import read_json_object
from stages.common.llama_cpp import llama_cpp_environment, tool
from stages.common.metrics import percentile
from stages.common.paths import CACHE, TEST
from stages.common.server import serve
from stages.evaluate import context_for, measure_latency, read_cases

SPINS = "GOMP_SPINCOUNT"
CASES = 200
ANSWER_TOKENS = 256


@contextmanager
def busy_loop(wanted: bool) -> Iterator[None]:
    """A program that does nothing but take a core, in a session of its own, as another user's would be."""
    if not wanted:
        yield
        return
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    try:
        yield
    finally:
        loop.kill()
        loop.wait()


def main() -> None:
    """Measure the first quant of the size in hand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=40, help="requests each time (default: 40)")
    parser.add_argument(
        "--spins", type=int, nargs="*", default=[100, 1000], help="other counts (default: 100 1000)"
    )
    wanted = parser.parse_args()
    quants = model_paths().quants
    model = quants / next(iter(read_json_object(quants / "quants.json").values()))
    cases = read_cases(TEST, CASES, seed(), task())
    params = evaluate_params().model_copy(update={"latency_requests": wanted.requests})
    ours = int(llama_cpp_environment()[SPINS])
    print(f"{'spins':>8} {'free p95 ms':>12} {'busy p95 ms':>12} {'requests x':>11} {'yardstick x':>12}")
    for spins in [ours, *wanted.spins]:
        os.environ[SPINS] = str(spins)
        p95, slow = [], []
        for is_busy in (False, True):
            log = CACHE / "logs/llama-server-benchmark.log"
            context = context_for(cases, ANSWER_TOKENS)
            with (
                busy_loop(is_busy),
                serve(tool("llama-server"), model, slots=params.slots, context=context, log=log) as server,
            ):
                latencies, slowness = measure_latency(server, cases, params, seed())
            p95.append(percentile(latencies, 95))
            slow.append(slowness)
        ratios = f"{p95[1] / p95[0]:11.2f} {slow[1] / slow[0]:12.2f}"
        print(f"{spins:8} {p95[0]:12.0f} {p95[1]:12.0f} {ratios}", flush=True)


if __name__ == "__main__":
    run_stage("latency", main)
