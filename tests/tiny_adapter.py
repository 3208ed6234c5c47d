"""An adapter for the base of size `tiny`, as the stage `train` would leave it, without the training."""

import json
from pathlib import Path

import torch
from checkpoint import file_digests
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from stages.common.paths import ModelPaths

TINY = ModelPaths("tiny", "correct")


def make_adapter(base: Path, out: Path, *, scale: float = 0.05) -> None:
    """A LoRA adapter with random weights in both of its matrices, so that it changes what the model says."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    tuned = get_peft_model(model, settings)
    for name, weights in tuned.named_parameters():
        if "lora_" in name:
            weights.data.mul_(scale if "lora_B" in name else 1.0)
    tuned.save_pretrained(out)
    digests = {"adapter": file_digests(sorted(out.iterdir())), "base": file_digests(sorted(base.iterdir()))}
    (out / "digests.json").write_text(json.dumps(digests), encoding="utf-8")
