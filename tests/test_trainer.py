"""The trainer: its gradients are those of transformers + peft, and a run survives what happens to runs."""

import copy
import hashlib
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from adapter import Adapter
from decoder import Decoder
from loss_scale import LossScale
from packing import Example, build, plan
from peft import PeftModel
from run_files import read_run
from safetensors.torch import load_file
from schedule import Schedule, crossed
from tokenizers import Tokenizer, models, pre_tokenizers
from train_lora import TrainingError, train
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

TRAINER = Path("kaggle/train_lora.py")
STOP = "<|im_end|>"
SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "tie_word_embeddings": True,
}


def random_model(kind: str, vocabulary: int = 97) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **SIZES))
    # norms of queries and keys, and heads wider than hidden / heads, as in Qwen3
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=vocabulary, head_dim=16, **SIZES))
    for layer in model.model.layers:
        torch.nn.init.uniform_(layer.self_attn.q_norm.weight, 0.5, 2)
        torch.nn.init.uniform_(layer.self_attn.k_norm.weight, 0.5, 2)
    return model


def random_examples(count: int) -> list[Example]:
    rng = random.Random(1)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(97) for _ in range(count))

    prefixes = [tokens(7), tokens(9)]
    return [Example(prefixes[i % 2], tokens(rng.randint(3, 9)), tokens(rng.randint(1, 6))) for i in range(count)]


def adapted(kind: str, dtype: torch.dtype, layers: int | None = None) -> tuple[Decoder, Adapter, PeftModel]:
    """The trainer's model with an adapter that does something, and the same in transformers + peft."""
    adapter = Adapter(random_model(kind), rank=4, alpha=8, layers=layers, seed=3)
    with torch.no_grad():
        adapter.values.add_(torch.randn(adapter.values.shape), alpha=0.1)
    reference = copy.deepcopy(adapter.peft)
    decoder = Decoder(adapter.peft.get_base_model(), dtype)
    [decoder] = adapter.attach(decoder)
    return decoder, adapter, reference


def separate_sequences(model: PeftModel, examples: list[Example]) -> tuple[float, torch.Tensor]:
    """Mean loss over all answer tokens and its gradient, one sequence at a time through transformers."""
    total, answers = torch.zeros(()), 0
    for example in examples:
        ids = torch.tensor([example.prefix + example.question + example.answer])
        logits = model(input_ids=ids, use_cache=False).logits[0, -len(example.answer) - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(example.answer), reduction="sum")
        answers += len(example.answer)
    (total / answers).backward()
    return total.item() / answers, torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def one_step(examples: list[Example]):
    [rows] = plan(examples, row_tokens=40, rows_per_step=99, total=len(examples), seed=0)
    assert len(rows) > 2
    assert max(len(row.examples) for row in rows) > 1
    return build(examples, rows)


@pytest.mark.parametrize("layers", [None, 2])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_prefix_shared_rows_give_the_loss_and_gradients_of_separate_sequences(kind, layers):
    examples = random_examples(14)
    decoder, adapter, reference = adapted(kind, torch.float32, layers)
    step = one_step(examples)

    loss = decoder.loss_and_gradients(step, 1 / len(step.targets)).item() / len(step.targets)
    expected_loss, expected = separate_sequences(reference, examples)

    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert expected.abs().max() > 0.05
    torch.testing.assert_close(adapter.values.grad, expected, rtol=0, atol=1e-5)
    assert decoder.loss(step).item() / len(step.targets) == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("share", [0.5, 0.01])
def test_the_backward_pass_of_a_share_is_that_of_the_hardest_examples_alone(kind, share):
    examples = random_examples(14)
    decoder, adapter, reference = adapted(kind, torch.float32)
    step = one_step(examples)
    alone = {example: separate_sequences(copy.deepcopy(reference), [example])[0] for example in examples}
    hardest = sorted(examples, key=lambda example: -alone[example] * len(example.answer))[: math.ceil(14 * share)]
    answers = sum(len(example.answer) for example in hardest)

    loss = decoder.loss_and_gradients(step, 1 / answers, share).item()
    _, expected = separate_sequences(reference, hardest)

    assert loss == pytest.approx(sum(alone[example] * len(example.answer) for example in examples), rel=1e-5)
    torch.testing.assert_close(adapter.values.grad, expected, rtol=0, atol=1e-5)


def test_bf16_gradients_point_the_same_way():
    examples = random_examples(14)
    decoder, adapter, reference = adapted("qwen3", torch.bfloat16)
    step = one_step(examples)

    decoder.loss_and_gradients(step, 1 / len(step.targets))
    _, expected = separate_sequences(reference, examples)

    assert torch.nn.functional.cosine_similarity(adapter.values.grad, expected, dim=0) > 0.99


def test_a_new_adapter_changes_nothing_and_its_seed_makes_it():
    same, other = (Adapter(random_model("llama"), 4, 8, None, seed) for seed in (3, 4))
    again = Adapter(random_model("llama"), 4, 8, None, 3)

    assert torch.equal(same.values, again.values)
    assert not torch.equal(same.values, other.values)
    assert all(not p.any() for name, p in same.peft.named_parameters() if "lora_B" in name)


def test_the_rate_warms_up_and_has_decayed_at_the_end_of_the_examples():
    schedule = Schedule(examples=1000, warmup_share=0.1, peak=1.0)
    rates = [schedule.learning_rate(seen, step=10) for seen in range(0, 1000, 10)]

    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == pytest.approx(1, abs=0.06)
    assert rates[-1] == pytest.approx(0, abs=0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert schedule.progress(0) == 0
    assert schedule.progress(1000) == 1


def test_validation_comes_at_its_share_of_the_run_and_at_the_end():
    places = [step for step in range(10) if crossed(step / 10, (step + 1) / 10, 0.25)]

    assert places == [2, 4, 7, 9]
    assert [step for step in range(10) if crossed(step / 10, (step + 1) / 10, 0)] == [9]


@pytest.fixture
def run(tmp_path):
    """The description of a short run on a tiny model, as a file, and the function that changes it."""
    base, dataset = tmp_path / "base", tmp_path / "dataset"
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=STOP)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", STOP]})
    tokenizer.chat_template = Path("data/chat_template.jinja").read_text(encoding="utf-8")
    tokenizer.save_pretrained(base)
    random_model("llama", len(tokenizer)).save_pretrained(base)
    dataset.mkdir()
    rng = random.Random(0)
    for name, count in (("train", 300), ("valid", 20)):
        lines = []
        for _ in range(count):
            word = "".join(rng.choice("abcdef") for _ in range(rng.randint(3, 9)))
            turns = {
                "system": f"For {rng.choice(['bash', 'zsh'])}.",
                "user": f"gti {word}",
                "assistant": f"git {word}",
            }
            lines.append(json.dumps({"messages": [{"role": r, "content": c} for r, c in turns.items()]}) + "\n")
        (dataset / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    description = {
        "base": str(base),
        "base_name": "nobody/tiny",
        "dataset": str(dataset),
        "adapter": str(tmp_path / "adapter"),
        "metrics": str(tmp_path / "metrics" / "train.json"),
        "plots": str(tmp_path / "plots"),
        "checkpoints": str(tmp_path / "checkpoints"),
        "seed": 5,
        "settings": {
            "rank": 4,
            "alpha": 8,
            "layers": None,
            "learning_rate": 0.003,
            "warmup_share": 0.05,
            "weight_decay": 0.01,
            "betas": [0.9, 0.99],
            "clip_norm": 1.0,
            "examples": 300,
            "backward_share": 1.0,
            "row_tokens": 200,
            "rows_per_step": 2,
            "time_limit_s": None,
            "validate_every": 0.5,
            "validation_rows": 10,
            "checkpoint_every_s": 1000,
        },
    }

    def describe(**settings: object) -> Path:
        description["settings"].update(settings)
        path = tmp_path / "run.json"
        path.write_text(json.dumps(description), encoding="utf-8")
        return path

    return describe


def start_trainer(
    description: Path, processes: int = 1, threads: int = 1, trainer: Path = TRAINER
) -> subprocess.CompletedProcess[str]:
    """The trainer as a program; by torchrun where there are several processes."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"] if processes > 1 else []
    argv = [sys.executable, *launcher, trainer, description]
    return subprocess.run(
        argv, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True
    )


@pytest.mark.slow
def test_two_processes_give_the_adapter_of_one_to_rounding(run, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # fp32: the rounding of bf16 is coarse
    description = run(examples=60, rows_per_step=3)  # a step's rows do not divide evenly
    weights = {}
    for processes in (1, 2):
        done = start_trainer(description, processes)
        assert done.returncode == 0, done.stderr
        weights[processes] = load_file(read_run(description).adapter / "adapter_model.safetensors")

    figures = json.loads(read_run(description).metrics.read_text())
    assert (figures["examples"], figures["number_format"]) == (60, "float32")
    assert weights[1].keys() == weights[2].keys()
    for name, value in weights[1].items():
        torch.testing.assert_close(weights[2][name], value, rtol=0, atol=2e-4)


@pytest.mark.slow
def test_a_run_whose_session_ends_stops_with_a_checkpoint_and_goes_on_to_the_same_adapter(run):
    description = run(examples=60)
    assert start_trainer(description).returncode == 0
    expected = adapter_digest(description)
    whole = json.loads(description.read_text())
    description.write_text(json.dumps({**whole, "stop_at": 0.0, "run_id": "oops-1"}))

    stopped = start_trainer(description)
    assert stopped.returncode == 75, stopped.stderr
    assert "stopped at step 1 of" in stopped.stderr
    [checkpoint] = read_run(description).checkpoints.glob("*/checkpoint.pt")
    voucher = json.loads(checkpoint.with_name("checkpoint.json").read_text())
    assert voucher["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert voucher["run_id"] == "oops-1"
    assert 0 < voucher["progress"] < 0.5

    description.write_text(json.dumps(whole))
    assert "going on from step 1 " in start_trainer(description).stderr
    assert adapter_digest(description) == expected


@pytest.mark.slow
def test_every_process_waits_for_the_checkpoint_before_it_leaves(run, tmp_path):
    """torchrun ends all processes as soon as one of them has left with another status than 0."""
    description = run(examples=60)
    description.write_text(json.dumps({**json.loads(description.read_text()), "stop_at": 0.0}))
    slow = tmp_path / "slow.py"
    slow.write_text(
        f"import sys; sys.path.insert(0, {str(TRAINER.parent.resolve())!r})\n"
        "import time, checkpoint, train_lora\n"
        "save = checkpoint.Checkpoints.save\n"
        "checkpoint.Checkpoints.save = lambda *given: (time.sleep(3), save(*given))\n"
        "train_lora.main()\n"
    )
    for step in (1, 2):
        stopped = start_trainer(description, processes=2, trainer=slow)
        assert f"stopped at step {step} of" in stopped.stderr, stopped.stderr


@pytest.mark.slow
def test_one_core_makes_the_adapter_of_two(run):
    description = run(examples=60, rows_per_step=3)
    made = []
    for cores in (1, 2):
        done = start_trainer(description, threads=cores)
        assert done.returncode == 0, done.stderr
        made.append(adapter_digest(description))
    assert made[0] == made[1]


@pytest.mark.slow
def test_a_checkpoint_of_other_threads_is_gone_on_from_and_says_so(run):
    description = run(examples=60, rows_per_step=1)  # of which all threads make one lane
    whole = json.loads(description.read_text())
    description.write_text(json.dumps({**whole, "stop_at": 0.0}))
    assert start_trainer(description).returncode == 75
    description.write_text(json.dumps(whole))
    done = start_trainer(description, threads=2)
    assert done.returncode == 0, done.stderr
    assert "going on from step 1 " in done.stderr
    assert "not the same bytes" in done.stderr


def test_the_loss_scale_halves_on_overflow_grows_back_and_gives_up_on_a_run_of_them():
    scale = LossScale(torch.float16)
    first = scale.value
    assert not scale.accepts(float("inf"))
    assert scale.value == first / 2
    assert all(scale.accepts(1.0) for _ in range(500))
    assert scale.value == first
    assert not scale.skips_too_often(501)
    while not scale.skips_too_often(501):
        assert not scale.accepts(float("nan"))
    assert scale.skipped > 10

    assert LossScale(torch.float32).value == 1
    assert not LossScale(torch.float32).accepts(float("nan"))


def test_a_scaled_loss_gives_the_gradients_of_an_unscaled_one_in_fp16():
    examples = random_examples(14)
    step = one_step(examples)
    decoder, adapter, reference = adapted("qwen3", torch.float16)

    decoder.loss_and_gradients(step, 2.0**11 / len(step.targets))
    _, expected = separate_sequences(reference, examples)

    assert torch.nn.functional.cosine_similarity(adapter.values.grad / 2.0**11, expected, dim=0) > 0.999


def test_an_outdated_torchao_is_hidden_from_peft(tmp_path):
    (tmp_path / "torchao").mkdir()
    (tmp_path / "torchao/__init__.py").write_text("")
    (tmp_path / "torchao-0.10.0.dist-info").mkdir()
    (tmp_path / "torchao-0.10.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchao\nVersion: 0.10.0\n"
    )
    program = "import adapter; {}adapter.is_torchao_available()"
    environment = {**os.environ, "PYTHONPATH": f"kaggle{os.pathsep}{tmp_path}"}

    def ends_well(hiding: str) -> bool:
        done = subprocess.run([sys.executable, "-c", program.format(hiding)], env=environment, capture_output=True)
        return done.returncode == 0

    assert not ends_well("")
    assert ends_well("adapter.hide_broken_torchao(); ")


def adapter_digest(description: Path) -> str:
    return hashlib.sha256((read_run(description).adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def test_a_run_learns_and_leaves_an_adapter_that_peft_loads(run):
    description = read_run(run())

    train(description)

    metrics = json.loads(description.metrics.read_text())
    curve = (description.plots / "loss.csv").read_text().splitlines()
    assert metrics["examples"] == 300
    assert curve[0] == "step,examples,train_loss,learning_rate"
    assert metrics["train_loss"] < float(curve[1].split(",")[2])
    assert len((description.plots / "valid.csv").read_text().splitlines()) == 3
    config = (description.adapter / "adapter_config.json").read_text()
    assert json.loads(config)["base_model_name_or_path"] == "nobody/tiny"
    assert str(description.base.parent) not in config
    digests = json.loads((description.adapter / "digests.json").read_text())
    saved = description.adapter / "adapter_model.safetensors"
    assert digests["adapter"][saved.name] == hashlib.sha256(saved.read_bytes()).hexdigest()
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(description.base), description.adapter)
    loaded = dict(model.named_parameters())
    for name, value in load_file(saved).items():
        assert torch.equal(loaded[name.replace(".weight", ".default.weight")], value)
    assert not list(description.checkpoints.glob("*"))


@pytest.mark.parametrize("examples", [40, 700])  # of 300: more than an epoch is some of them again
def test_a_run_sees_exactly_so_many_examples(run, examples):
    description = read_run(run(examples=examples))

    train(description)

    metrics = json.loads(description.metrics.read_text())
    assert metrics["examples"] == metrics["examples_planned"] == examples


def test_the_time_limit_cuts_a_run_short_and_says_so(run, capsys):
    description = read_run(run(examples=90_000, time_limit_s=1))

    train(description)

    metrics = json.loads(description.metrics.read_text())
    assert 0 < metrics["examples"] < metrics["examples_planned"] == 90_000
    assert "the time limit of 1 s cut the run short" in capsys.readouterr().err
    assert (description.adapter / "adapter_model.safetensors").is_file()
    assert (description.plots / "valid.csv").read_text().splitlines()[-1].split(",")[1] == str(metrics["examples"])


def test_a_limit_that_comes_right_after_a_point_of_the_curve_and_a_validation_is_one_too(run):
    """In a run of few steps every one is a point of the curve, and here also a validation."""
    description = read_run(run(examples=400, time_limit_s=1e-6, validate_every=0.001))

    train(description)

    metrics = json.loads(description.metrics.read_text())
    assert 0 < metrics["examples"] < 400
    for name in ("loss", "valid"):
        assert len((description.plots / f"{name}.csv").read_text().splitlines()) == 2


def test_the_time_left_is_at_most_the_time_limit(run, capsys):
    train(read_run(run(examples=90_000, time_limit_s=2)))

    left = re.findall(r"(\d+):(\d+) left", capsys.readouterr().err)
    assert left
    assert all((int(minutes), int(seconds)) <= (0, 2) for minutes, seconds in left)


def test_a_share_of_the_backward_pass_learns_too(run):
    description = read_run(run(backward_share=0.4))

    train(description)

    curve = [line.split(",") for line in (description.plots / "loss.csv").read_text().splitlines()[1:]]
    assert float(curve[-1][2]) < float(curve[0][2])


def test_a_loss_that_is_not_a_number_ends_the_run_in_one_line(run):
    with pytest.raises(TrainingError, match=r"step 2.*learning_rate"):
        train(read_run(run(learning_rate=1e38)))


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(run):
    def start(description: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, TRAINER, description], stderr=subprocess.PIPE, text=True, env={**os.environ}
        )

    description = run(checkpoint_every_s=0.0)  # one after every step
    checkpoints = read_run(description).checkpoints
    whole = start(description)
    assert whole.wait() == 0
    expected = adapter_digest(description)

    killed = start(description)
    while not (saved := list(checkpoints.glob("*/checkpoint.pt"))):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert torch.load(saved[0], weights_only=True)["step"] > 0
    resumed = start(description)
    _, messages = resumed.communicate()

    assert resumed.returncode == 0, messages
    assert "going on from step" in messages
    assert adapter_digest(description) == expected


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] can't allocate memory: 64 bytes")])
def test_memory_that_is_refused_is_one_line(monkeypatch, capsys, error):
    def refused(_: object) -> None:
        raise error

    train_lora = sys.modules[TrainingError.__module__]
    monkeypatch.setattr(train_lora, "train", refused)
    monkeypatch.setattr(train_lora, "read_run", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["train_lora.py", "run.json"])
    with pytest.raises(SystemExit) as ended:
        train_lora.main()
    assert ended.value.code == 1
    message = "train: error: there is not enough memory; free some, or lower train.rows_per_step\n"
    assert capsys.readouterr().err == message


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda run: run.base.joinpath("config.json").unlink(), "config.json"),
        (lambda run: run.dataset.joinpath("train.jsonl").write_text("{\n"), "train.jsonl:1"),
        (lambda run: cut(run.base / "model.safetensors"), "the base is damaged"),
    ],
)
@pytest.mark.slow
def test_bad_input_is_one_line_and_exit_status_1(run, spoil, complaint):
    description = run()
    spoil(read_run(description))

    done = subprocess.run([sys.executable, TRAINER, description], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert complaint in done.stderr.strip()
    assert len(done.stderr.strip().splitlines()) == 1
    assert not read_run(description).adapter.exists()
