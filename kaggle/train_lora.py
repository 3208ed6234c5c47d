"""Train a LoRA adapter on chat rows, answers only.

In:  one JSON file (`run_files.Run`) that names a base directory (config, safetensors, tokenizer with its chat
     template), a dataset directory (train.jsonl, valid.jsonl) and the settings.
Out: an adapter directory in peft's format, metrics as JSON, loss curves as CSV.

    python kaggle/train_lora.py run.json
    torchrun --nproc-per-node=2 kaggle/train_lora.py run.json       where there are two GPUs

A run is so many examples. One that was killed goes on from its last checkpoint when started again with the same
file. With the same torch and threads it ends with the same adapter as one that was not. One that reaches `stop_at`
ends with a checkpoint and exit status 75. `time_limit_s`, where it is set, cuts a run short: the adapter is what
has been learnt until then, a line says so, and the metrics show fewer `examples` than `examples_planned`.
"""

from __future__ import annotations

import math
import random
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from adapter import Adapter, hide_broken_torchao
from checkpoint import CheckpointError, Checkpoints, file_digests, run_key
from decoder import Decoder
from lanes import Lanes
from loss_scale import LossScale
from packing import DataError, Example, batches, plan, read_rows, tokenize
from placement import Placement, PlacementError, leave, place
from run_files import Curves, Run, read_run, write_results
from safetensors import SafetensorError
from schedule import Schedule, crossed
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

STOP = "<|im_end|>"
CURVE_EVERY = 0.005  # of the run: 200 points
STOPPED = 75  # the exit status of a run that is to be started again (EX_TEMPFAIL of sysexits.h)


class TrainingError(Exception):
    """One line: what went wrong, where, what to do."""


class TimeIsUpError(Exception):
    """The run's session ends; a checkpoint is written."""


class Training:
    """A run in memory: the model, its adapter, the optimizer and the curves so far."""

    def __init__(self, run: Run, placement: Placement, planned: int) -> None:
        """`planned`: the examples that the whole run will see."""
        settings = run.settings
        model = AutoModelForCausalLM.from_pretrained(run.base, dtype="auto").to(placement.device)
        self.adapter = Adapter(model, settings.rank, settings.alpha, settings.layers, run.seed)
        self.decoder = Decoder(self.adapter.peft.get_base_model(), placement.dtype)
        self.lanes = Lanes(self.adapter.attach(self.decoder, placement.lanes), placement.device)
        self.optimizer = torch.optim.AdamW(
            [self.adapter.values],
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.placement, self.clip_norm = placement, settings.clip_norm
        self.scale = LossScale(placement.dtype)
        self.backward_share = settings.backward_share
        self.schedule = Schedule(planned, settings.warmup_share, settings.learning_rate)
        self.curves = Curves()
        self.rate = 0.0
        self.step = 0
        self.examples = 0
        self.elapsed_s = 0.0
        self._spent_s = 0.0
        self._since = time.monotonic()

    def tick(self) -> None:
        """Bring `elapsed_s` up to date: seconds of training, those before a kill included.

        Where several processes train, all go by the first one's clock, so that they decide alike.
        """
        self.elapsed_s = self.placement.from_first(self._spent_s + time.monotonic() - self._since)

    @property
    def session_s(self) -> float:
        """Seconds of training since this process was started."""
        return self.elapsed_s - self._spent_s

    @property
    def progress(self) -> float:
        """How far the run has come, 0 to 1."""
        return self.schedule.progress(self.examples)

    @property
    def remaining_s(self) -> float:
        """Seconds to the end at the pace so far; every step is as long as the others but for noise."""
        return self.elapsed_s / self.examples * (self.schedule.examples - self.examples)

    def make_step(self, examples: Sequence[Example], rows: Sequence) -> float:
        """One optimizer step; returns the mean loss over the answer tokens of its rows."""
        seen = [index for row in rows for index in row.examples]
        answers = sum(len(examples[index].answer) for index in seen)
        loss = self._backward(examples, self.placement.share(rows), answers)
        norm = torch.nn.utils.clip_grad_norm_([self.adapter.values], self.clip_norm).item()
        made = self.scale.accepts(norm)
        if not math.isfinite(loss) or not (made or self.scale.adapts) or self.scale.skips_too_often(self.step):
            raise TrainingError(
                f"step {self.step + 1}: the loss is {loss}, its gradient's norm {norm}, "
                f"{self.scale.skipped} steps were skipped; lower train.learning_rate"
            )
        self.tick()
        self.rate = self.schedule.learning_rate(self.examples, len(seen))
        if made:
            self.optimizer.param_groups[0]["lr"] = self.rate
            self.optimizer.step()
            self.adapter.refresh()
        self.step += 1
        self.examples += len(seen)
        self.curves.add_step(loss, answers)
        return loss

    def _backward(self, examples: Sequence[Example], rows: Sequence, answers: int) -> float:
        """Leave the gradient of the mean loss over all processes' `answers` in the adapter; returns that loss."""
        self.adapter.clear_gradients()
        loss = self.lanes.loss_and_gradients(examples, rows, self.scale.value / answers, self.backward_share)
        gradient = self.placement.sum(self.adapter.collect())
        if self.scale.value != 1:
            gradient.div_(self.scale.value)
        return self.placement.sum(loss).item() / answers

    def validate(self, examples: Sequence[Example], settings: object) -> float:
        """Mean loss over the answer tokens of the validation sample."""
        steps = self.placement.share(list(batches(examples, settings.row_tokens, settings.rows_per_step)))
        answers = sum(len(step.targets) for step in steps)
        sums = torch.tensor(
            [self.lanes.loss(steps).item(), answers], dtype=torch.float64, device=self.placement.device
        )
        total, answers = self.placement.sum(sums).tolist()
        self.curves.add_validation(self.step, self.examples, total / answers)
        return total / answers

    def state(self) -> dict:
        return {
            "number_format": self.placement.number_format,
            "made_with": self.placement.made_with,
            "step": self.step,
            "examples": self.examples,
            "elapsed_s": self.elapsed_s,
            "adapter": self.adapter.values.detach(),
            "optimizer": self.optimizer.state_dict(),
            "scale": self.scale.state(),
            "curves": self.curves.state(),
        }

    def restore(self, state: dict) -> None:
        with torch.no_grad():
            self.adapter.values.copy_(state["adapter"])
        self.adapter.refresh()
        self.optimizer.load_state_dict(state["optimizer"])
        self.scale.restore(state["scale"])
        self.curves.restore(state["curves"])
        self.step, self.examples = state["step"], state["examples"]
        self.elapsed_s = self._spent_s = state["elapsed_s"]
        self._since = time.monotonic()


def train(run: Run) -> None:
    """Train from the last checkpoint, or from the start, to the end, and write the results."""
    settings = run.settings
    digests = {
        "base": file_digests(sorted(path for path in run.base.iterdir() if path.is_file())),
        "dataset": file_digests([run.dataset / "train.jsonl", run.dataset / "valid.jsonl"]),
        "trainer": file_digests(sorted(Path(__file__).parent.glob("*.py"))),
    }
    key = run_key({**digests, **run.what_is_trained()})
    checkpoints = Checkpoints(run.checkpoints, key, run.run_id, _report)
    state = checkpoints.load()

    missing = [name for name in ("config.json", "tokenizer.json") if name not in digests["base"]]
    if missing:
        raise TrainingError(f"{run.base / missing[0]}: not there; make the base first")
    tokenizer = AutoTokenizer.from_pretrained(run.base)
    examples = tokenize(tokenizer, read_rows(run.dataset / "train.jsonl"), STOP)
    sample = read_rows(run.dataset / "valid.jsonl")
    sample = random.Random(run.seed).sample(sample, min(settings.validation_rows, len(sample)))
    validation = tokenize(tokenizer, sample, STOP)
    steps = plan(examples, settings.row_tokens, settings.rows_per_step, settings.examples, run.seed)

    placement = place(state["number_format"] if state else None, run.device, settings.rows_per_step)
    training = Training(run, placement, settings.examples)
    if state:
        training.restore(state)
        if placement.is_first:
            _report(f"going on from step {training.step} of {len(steps)}")
            if state["made_with"] != placement.made_with:
                _report(
                    f"the checkpoint is of {state['made_with']}, this is {placement.made_with}: "
                    "as good an adapter, not the same bytes"
                )
        state.clear()  # on a GPU the optimizer has its own copy: two do not fit beside a large model
    _loop(training, steps, examples, validation, checkpoints, run)
    if placement.is_first:
        write_results(run, training, digests)
        checkpoints.remove()


def _loop(
    training: Training,
    steps: Sequence,
    examples: Sequence[Example],
    validation: Sequence[Example],
    checkpoints: Checkpoints,
    run: Run,
) -> None:
    settings = run.settings
    time_limit_s = settings.time_limit_s or math.inf
    saved_s = time.monotonic()
    session_ends_s = math.inf
    if run.stop_at is not None:  # seconds of training from now, by the first process's clock
        session_ends_s = training.placement.from_first(run.stop_at - time.time())
    before = training.progress
    bar = "{l_bar}{bar}| {n_fmt}/{total_fmt} examples [{elapsed}, {rate_fmt}{postfix}]"
    with tqdm(
        total=settings.examples,
        initial=training.examples,
        unit=" examples",
        bar_format=bar,
        desc="train",
        disable=not training.placement.is_first,
    ) as progress:
        while before < 1:
            loss = training.make_step(examples, steps[training.step])
            after = training.progress
            if crossed(before, after, CURVE_EVERY):
                training.curves.add_point(training.step, training.examples, training.rate)
            if crossed(before, after, settings.validate_every):
                training.validate(validation, settings)
            before = after
            left = tqdm.format_interval(max(0, min(training.remaining_s, time_limit_s - training.elapsed_s)))
            progress.set_postfix_str(f"loss {loss:.3f}, {left} left", refresh=False)
            progress.update(training.examples - progress.n)
            time_is_up = training.session_s > session_ends_s and before < 1
            due = time_is_up or time.monotonic() - saved_s > settings.checkpoint_every_s
            if due and training.placement.is_first:
                checkpoints.save(training.state(), training.progress)
                saved_s = time.monotonic()
            if before < 1 and training.elapsed_s > time_limit_s:
                break
            if time_is_up:
                training.tick()  # the others wait here: torchrun ends all as soon as one has left
                raise TimeIsUpError(f"stopped at step {training.step} of {len(steps)} with a checkpoint")
    training.tick()
    if before < 1:
        training.curves.add_point(training.step, training.examples, training.rate)
        if not training.curves.is_validated(training.step):
            training.validate(validation, settings)
        if training.placement.is_first:
            _report(
                f"the time limit of {time_limit_s:.0f} s cut the run short: {training.examples} of "
                f"{settings.examples} examples; raise or unset train.time_limit_s"
            )


def _report(line: str) -> None:
    """Show a person something that is no error."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Train what the named file describes; an error foreseen is one line and exit status 1."""
    transformers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # peft's business, not ours
    transformers_logging.disable_progress_bar()
    hide_broken_torchao()
    try:
        if len(sys.argv) != 2:
            raise TrainingError("usage: python kaggle/train_lora.py run.json")
        train(read_run(Path(sys.argv[1])))
    except TimeIsUpError as stop:
        print(f"train: {stop}", file=sys.stderr)
        leave()
        sys.exit(STOPPED)
    except SafetensorError as error:
        print(f"train: error: the base is damaged ({error}); remove it and run `dvc repro`", file=sys.stderr)
        sys.exit(1)
    except torch.OutOfMemoryError as error:
        print(f"train: error: {str(error).split('. ')[0]}; lower train.rows_per_step", file=sys.stderr)
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or "can't allocate memory" in str(error)):  # torch's has no class
            raise
        print("train: error: there is not enough memory; free some, or lower train.rows_per_step", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\ntrain: stopped; run again to go on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except (TrainingError, DataError, PlacementError, CheckpointError, OSError) as error:
        print("train: error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(1)
    leave()


if __name__ == "__main__":
    main()
