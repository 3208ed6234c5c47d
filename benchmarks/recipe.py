"""What a recipe makes of the same number of examples: loss and exact match on validation rows, and its time.

In: the base and the dataset of the size in hand. Each argument is a variant, the settings of `train` in
configs/<size>.yaml that it has differently; without any, it is the recipe as it is.

    python -m benchmarks.recipe --examples 2400 layers=30 learning_rate=0.001,rows_per_step=2

Exact match is that of the unquantized model on the answers of the dataset, all tokens of which have to be the most
likely ones given those before: what greedy decoding would write, without writing it. Time is this process's
processor time, in which other work on the machine has little say; so set OMP_NUM_THREADS=1 on a busy machine.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import yaml
from tqdm import tqdm

from benchmarks.training import training_of, with_environment_of_the_stage
from stages.common.config import TrainConfig, left_as_typed, model_paths, task, train_config
from stages.common.lessons import lessons, read_as_taught
from stages.common.paths import TRAIN, VALID
from stages.common.promised import promises
from stages.training.local import TRAINER

VALIDATION_ROWS = 600


def variant(text: str, settings: TrainConfig) -> TrainConfig:
    """The settings with `key=value,key=value` on top; an unknown key or a wrong value is a `ValidationError`."""
    changes = {key: yaml.safe_load(value) for key, _, value in (part.partition("=") for part in text.split(","))}
    return TrainConfig.model_validate({**settings.model_dump(), **changes})


def likeliest(decoder: Any, step: Any) -> Any:
    """[A] for every answer token of a step, the token that the model finds most likely there."""
    import torch
    import torch.nn.functional as F

    with torch.no_grad():
        shape = decoder._shape(step)
        x = F.embedding(step.ids, decoder.embedding).float()
        for layer in decoder.layers:
            x, _ = layer.forward(x, shape)
        h, _ = decoder.norm.forward(x[step.predicting])
        return decoder.logits(h.to(decoder.dtype)).argmax(-1)


def exact_match(decoder: Any, steps: Iterable[Any]) -> float:
    """The share of examples of which every answer token is the most likely one."""
    wrong = total = 0
    for step in steps:
        wrong += len(step.answered[likeliest(decoder, step) != step.targets].unique())
        total += step.examples
    return 1 - wrong / total


def measure(
    settings: TrainConfig, seed: int, examples: Sequence[Any], validation: Sequence[Any]
) -> dict[str, float]:
    """Train on the examples, which were drawn by these settings, and look at the validation rows."""
    from packing import batches, plan

    training = training_of(model_paths(), settings, seed)
    steps = plan(examples, settings.row_tokens, settings.rows_per_step, settings.examples, seed)
    began = time.process_time()
    for rows in tqdm(steps, desc="steps"):
        training.make_step(examples, rows)
    seconds = time.process_time() - began
    sample = list(batches(validation, settings.row_tokens, settings.rows_per_step))
    loss = sum(training.decoder.loss(step).item() for step in sample) / sum(len(step.targets) for step in sample)
    return {
        "processor_s": round(seconds),
        "valid_loss": round(loss, 4),
        "exact_match": round(exact_match(training.decoder, sample), 3),
    }


def main() -> None:
    """Measure every variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=2400, help="that each variant sees (default: 2400)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the examples and of the adapter")
    parser.add_argument("variants", nargs="*", help="settings of `train` as key=value,key=value")
    given = parser.parse_args()
    with_environment_of_the_stage("benchmarks.recipe")
    sys.path.insert(0, str(TRAINER.parent))
    from packing import tokenize
    from train_lora import STOP
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_paths().base)
    train, valid = (read_as_taught(path, task(), left_as_typed()) for path in (TRAIN, VALID))

    def tokenized(rows: Sequence[dict[str, Any]]) -> Sequence[Any]:
        return tokenize(tokenizer, [row["messages"] for row in rows], STOP)

    validation = tokenized(random.Random(7).sample(valid, VALIDATION_ROWS))
    print(f"{'variant':60} {'processor s':>11} {'loss':>7} {'exact match':>11}")
    found = {}
    for text in given.variants or [f"examples={given.examples}"]:
        settings = variant(f"examples={given.examples},{text}", train_config())
        drawn = lessons(train, promises(), task(), settings.examples, given.seed)
        found[text] = figures = measure(settings, given.seed, tokenized(drawn), validation)
        seconds, loss, exact = figures.values()
        print(f"{text:60} {seconds:11} {loss:7} {exact:11}", flush=True)
    print(json.dumps({"examples": given.examples, "seed": given.seed, "variants": found}))


if __name__ == "__main__":
    main()
