"""Stage `convert`: base and adapter become one f16 GGUF, by llama.cpp's own converter.

In: models/<size>/base, models/<size>/<task>/adapter, `card` of configs/<model_size>.yaml,
data/conversion_lines.txt and data/llama_cpp.yaml. Out: models/<size>/<task>/f16/<name>-f16.gguf. Alone: `python
-m stages.convert`.

Nothing is taken on trust: the adapter's files must be those that training wrote, and the base's those that it
began with; the merged weights must give the adapter model's logits; and the file must carry the metadata, split
text into the tokenizer's ids, and compute the perplexity that torch computes.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import yaml

from stages.common.chat import SHELLS, render_prompt
from stages.common.cli import run_stage
from stages.common.config import ModelCard, model_card, model_paths
from stages.common.files import replace_directory, write_json
from stages.common.llama_cpp import source, tool
from stages.common.paths import CACHE
from stages.common.processes import load_torch
from stages.common.progress import follow_tool
from stages.converting.adapters import require_whole
from stages.converting.checks import require_metadata, require_same_perplexity, require_same_tokens
from stages.converting.merging import load_tuned, merge, save_f16

LINES = Path("data/conversion_lines.txt")
RUNNER = Path(__file__).parent / "converting" / "run_converter.py"

_PROMPTS = 16
_WRITTEN = re.compile(r"Writing: +(\d+)%")
_PYTHON_ERROR = re.compile(r"^\w*(?:Error|Exception)\b")
_HUB = "https://huggingface.co"


def card_front_matter(card: ModelCard) -> dict[str, object]:
    """What the converter reads from the README.md of a model's folder (gguf-py, `Metadata.load_model_card`)."""
    basename, _, finetune = card.name.removesuffix(f"-{card.size_label}").rpartition("-")
    return {
        "name": card.title,
        "basename": basename,
        "finetune": finetune,
        "size_label": card.size_label,
        "description": card.description,
        "license": card.license,
        "tags": ["text-generation", "shell", "command-correction"],
        "language": ["en"],
    }


def metadata_overrides(card: ModelCard) -> dict[str, object]:
    """What its README.md cannot say: the base model in full, and greedy decoding as the default of programs that
    set no sampling of their own."""
    base = {"name": card.base_model_name, "organization": card.base_model_organization}
    if card.base_model_repo is not None:
        base["repo_url"] = f"{_HUB}/{card.base_model_repo}"
    return {"general.base_models": [base], "general.sampling.temp": 0.0}


def expected_metadata(card: ModelCard, chat_template: str) -> dict[str, object]:
    """The pairs that the GGUF must end up with."""
    front = card_front_matter(card)
    expected = {f"general.{key}": front[key] for key in ("name", "basename", "finetune", "size_label", "license")}
    if card.base_model_repo is not None:
        expected["general.base_model.0.repo_url"] = f"{_HUB}/{card.base_model_repo}"
    return {
        **expected,
        "general.description": card.description,
        "general.tags": front["tags"],
        "general.languages": front["language"],
        "general.base_model.0.name": card.base_model_name,
        "tokenizer.ggml.pre": card.pre_tokenizer,
        "tokenizer.chat_template": chat_template,
    }


def convert(model: Path, card: ModelCard, out: Path) -> None:
    """Run llama.cpp's converter on a model folder in Hugging Face's layout."""
    front = yaml.safe_dump(card_front_matter(card), sort_keys=False, allow_unicode=True)
    (model / "README.md").write_text(f"---\n{front}---\n", encoding="utf-8")
    overrides = model / "overrides.json"
    write_json(overrides, metadata_overrides(card))
    follow_tool(
        [
            *(sys.executable, RUNNER, source(), card.pre_tokenizer, model, "--outfile", out, "--outtype", "f16"),
            *("--metadata", overrides),
        ],
        what=f"converting to {out.name}",
        counter=_WRITTEN,
        total=100,
        log=CACHE / "logs" / "convert.log",
        blame=_PYTHON_ERROR,
        writes=out.parent,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
    )


def check_lines() -> list[str]:
    """The lines over which the model and its GGUF are compared."""
    return LINES.read_text(encoding="utf-8").splitlines()


def check_prompts(lines: list[str]) -> list[str]:
    """Sixteen prompts as the clients send them, through all shells."""
    return [render_prompt(SHELLS[i % len(SHELLS)], line) for i, line in enumerate(lines[:_PROMPTS])]


def main() -> None:
    """Merge, convert and check the size in hand."""
    load_torch()  # beside one busy program its products took 27 s instead of 6 for the tiny model
    from transformers import AutoTokenizer

    paths, card = model_paths(), model_card()
    tools = {name: tool(name) for name in ("llama-tokenize", "llama-perplexity")}  # first: a build may be missing
    require_whole(paths.adapter, paths.base)
    tuned = load_tuned(paths.base, paths.adapter)
    tokenizer = AutoTokenizer.from_pretrained(paths.base, local_files_only=True)
    lines = check_lines()
    prompts = check_prompts(lines)
    merged = merge(tuned, [tokenizer(prompt)["input_ids"] for prompt in prompts])
    with replace_directory(paths.f16) as out:
        gguf = out / f"{card.name}-f16.gguf"
        save_f16(merged, paths.base, out / "merged")
        convert(out / "merged", card, gguf)
        shutil.rmtree(out / "merged")
        template = (paths.base / "chat_template.jinja").read_text(encoding="utf-8")
        require_metadata(gguf, expected_metadata(card, template))
        for text in ("\n".join(lines), "".join(prompts).rstrip("\n")):
            require_same_tokens(tools["llama-tokenize"], gguf, text, tokenizer(text)["input_ids"])
        text = "\n".join(lines)
        require_same_perplexity(tools["llama-perplexity"], gguf, text, merged, tokenizer(text)["input_ids"])
    print(json.dumps({"f16": str(paths.f16 / gguf.name), "bytes": (paths.f16 / gguf.name).stat().st_size}))


if __name__ == "__main__":
    run_stage("convert", main)
