"""The adapter merged into its base in fp32, and the proof that the merged model still says the same."""

import json
import shutil
from pathlib import Path
from typing import Any

from stages.common.errors import PipelineError
from stages.common.files import read_json, save_weights

MERGED_TOLERANCE = 1e-2
"""Largest difference of a logit that merging in fp32 may make; 1e-4 was measured, an adapter left out makes 1 and
more (logits are in the tens)."""
ROUNDED_TOLERANCE = 0.25
"""Largest difference of a logit that rounding the merged weights to fp16 may make; 0.05 was measured."""


def load_tuned(base: Path, adapter: Path) -> Any:
    """The base model in fp32 with the adapter beside its weights (a `PeftModel` in evaluation mode).

    Raises:
        PipelineError: the adapter does not fit the base.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    for path in (base / "config.json", adapter / "adapter_config.json"):
        if not path.is_file():
            raise PipelineError(f"{path}: not there; run `dvc repro`, which makes it")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    try:
        return PeftModel.from_pretrained(model, adapter).eval()
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise PipelineError(f"{adapter}: the adapter does not fit {base}: {reason}; train it again") from None


def merge(tuned: Any, prompts: list[list[int]]) -> Any:
    """Merge the adapter into the weights in fp32 and round them to fp16 values, which stay fp32 tensors.

    After either step the logits over `prompts` (token ids) are compared with the adapter model's.

    Raises:
        PipelineError: they differ by more than the step explains, or a weight is not finite.
    """
    expected = _logits(tuned, prompts)
    try:
        merged = tuned.merge_and_unload(safe_merge=True)
    except ValueError as error:  # NaN in the merged weights
        raise PipelineError(f"merging: {error}; train the adapter again") from None
    require_close(expected, _logits(merged, prompts), MERGED_TOLERANCE, "merged in fp32")
    for parameter in merged.parameters():
        parameter.data = parameter.data.half().float()
    require_close(expected, _logits(merged, prompts), ROUNDED_TOLERANCE, "rounded to fp16")
    return merged


def require_close(expected: list[Any], found: list[Any], tolerance: float, step: str) -> None:
    """Compare logits (one `[tokens, vocabulary]` tensor a prompt).

    Raises:
        PipelineError: a pair differs by more than `tolerance`, or one is not finite.
    """
    differences = [float((a - b).abs().max()) for a, b in zip(expected, found, strict=True)]
    beyond = [each for each in differences if not each <= tolerance]  # a NaN is neither less nor more
    if beyond:
        raise PipelineError(
            f"the model {step} is not the one that was trained: logits differ by {beyond[0]:.3g}, more than "
            f"{tolerance:g}; train the adapter again, and if it comes again, look for weights beyond fp16's range"
        )


def save_f16(model: Any, base: Path, out: Path) -> None:
    """Write the merged weights in fp16 with the base's own config and tokenizer files, for the converter.

    The tokenizer's files are copied, not saved anew: what transformers 5 writes, others do not always read.
    `generation_config.json` stays behind, since its sampling settings would become the GGUF's defaults.
    """
    import torch

    out.mkdir(parents=True)
    for path in base.iterdir():
        if path.is_file() and path.name.startswith(("tokenizer", "vocab", "merges", "chat_template", "special_")):
            shutil.copyfile(path, out / path.name)
    settings = read_json(base / "config.json")
    settings.pop("torch_dtype", None)
    (out / "config.json").write_text(json.dumps({**settings, "dtype": "float16"}, indent=2), encoding="utf-8")
    weights = model.state_dict()
    if model.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    weights = {name: tensor.to(torch.float16).contiguous() for name, tensor in weights.items()}
    save_weights(weights, out / "model.safetensors")


def _logits(model: Any, prompts: list[list[int]]) -> list[Any]:
    import torch

    with torch.inference_mode():
        return [model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float() for ids in prompts]
