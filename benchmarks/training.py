"""Examples a second of `kaggle/train_lora.py`, against the plain recipe of transformers + peft.

Run by hand from the repository's root, after `dvc repro`: `python -m benchmarks.training [--rounds N]`. The plain
recipe is fp32, random batches of 4, padded, loss on all tokens, LoRA of the same rank on q, k, v and o with
dropout 0.05, through autograd. Both train the same model on rows of the same train split, in turns, so that a
busy machine slows both; loading and the first step, which is slower, are not counted. Prints a table and JSON;
takes two minutes for the size 135m on two cores.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from stages.common.cli import run_stage
from stages.common.config import TrainConfig, model_paths, model_size, seed, train_config
from stages.common.paths import TRAIN, ModelPaths
from stages.training.local import ENVIRONMENT, TRAINER

PLAIN_BATCH = 4
PLAIN_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj"]
PLAIN_DROPOUT = 0.05
WAY_SECONDS = 12.0  # a way's share of a round

Steps = Iterator[int]  # each `next` makes an optimizer step and tells how many examples it held


def with_environment_of_the_stage(module: str) -> None:
    """Start `module` again with the variables that the trainer gets; the allocator reads them early."""
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], os.environ | ENVIRONMENT)


def training_of(paths: ModelPaths, settings: TrainConfig, seed_value: int) -> Any:
    """The trainer's own model in memory, as `train_lora.py` makes it."""
    from placement import place
    from run_files import Run, Settings
    from train_lora import Training

    run = Run(
        **{"base": paths.base, "base_name": "", "dataset": TRAIN.parent, "adapter": paths.adapter},
        **{"metrics": paths.metrics, "plots": paths.plots, "checkpoints": paths.adapter, "seed": seed_value},
        settings=Settings(**settings.model_dump()),
    )
    return Training(run, place(None, rows_per_step=settings.rows_per_step), settings.examples)


def ours(paths: ModelPaths, examples: Sequence[Any], settings: TrainConfig) -> Steps:
    """The trainer's own steps, as `train_lora.py` makes them."""
    from packing import plan

    training = training_of(paths, settings, seed())
    steps = plan(examples, settings.row_tokens, settings.rows_per_step, settings.examples, seed())
    for rows in steps:
        training.make_step(examples, rows)
        yield sum(len(row.examples) for row in rows)


def plain(paths: ModelPaths, examples: Sequence[Any], settings: TrainConfig) -> Steps:
    """What a tutorial does."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(paths.base, dtype=torch.float32)
    model = get_peft_model(
        model,
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=PLAIN_DROPOUT,
            target_modules=PLAIN_MODULES,
            task_type="CAUSAL_LM",
        ),
    ).train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=2e-4)
    order = random.Random(seed()).sample(range(len(examples)), len(examples))
    for begin in range(0, len(order), PLAIN_BATCH):
        texts = [torch.tensor(whole(examples[i])) for i in order[begin : begin + PLAIN_BATCH]]
        ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
        loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield len(texts)


def whole(example: Any) -> tuple[int, ...]:
    """The token ids of an example as one sequence."""
    return example.prefix + example.question + example.answer


def alternate(ways: dict[str, Steps], rounds: int) -> dict[str, float]:
    """Examples a second of each way, over rounds in which every way trains for about `WAY_SECONDS`."""
    seconds, examples = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0)
    for steps in ways.values():
        next(steps)
    with tqdm(total=rounds * len(ways), desc="rounds x ways") as bar:
        for _ in range(rounds):
            for name, steps in ways.items():
                begin = time.perf_counter()
                while time.perf_counter() - begin < WAY_SECONDS:
                    examples[name] += next(steps)
                seconds[name] += time.perf_counter() - begin
                bar.update()
    return {name: examples[name] / seconds[name] for name in ways}


def report(rates: dict[str, float], size: str) -> str:
    """The table and, below it, the same as JSON; the first way is the one the others are compared with."""
    first = next(iter(rates.values()))
    lines = [f"{'way':24} {'examples/s':>10} {'ours is faster by':>18}"]
    lines += [f"{name:24} {rate:10.2f} {first / rate:17.1f}x" for name, rate in rates.items()]
    figures = {
        name: {"examples_per_s": round(rate, 3), "ours_is_faster_by": round(first / rate, 2)}
        for name, rate in rates.items()
    }
    return "\n".join([*lines, json.dumps({"model_size": size, "ways": figures})])


def main() -> None:
    """Measure the size in hand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4, help="turns of each way (default: 4)")
    rounds = parser.parse_args().rounds
    with_environment_of_the_stage("benchmarks.training")
    sys.path.insert(0, str(TRAINER.parent))
    from packing import read_rows, tokenize
    from train_lora import STOP
    from transformers import AutoTokenizer

    paths, settings = model_paths(), train_config()
    examples = tokenize(AutoTokenizer.from_pretrained(paths.base), read_rows(TRAIN), STOP)
    ways: dict[str, Callable[..., Steps]] = {"ours": ours, "plain recipe": plain}
    rates = alternate({name: way(paths, examples, settings) for name, way in ways.items()}, rounds)
    print(report(rates, model_size()))


if __name__ == "__main__":
    run_stage("benchmark", main)
