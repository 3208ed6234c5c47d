"""Is the GGUF what went into it? Its metadata, its tokenizer, and what it computes, each against the original."""

import ast
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.common.chat import STOP
from stages.common.errors import PipelineError
from stages.common.files import scratch_directory
from stages.common.llama_cpp import llama_cpp_environment
from stages.common.paths import CACHE
from stages.common.processes import run_tool

PERPLEXITY_TOLERANCE = 0.02
"""Largest relative difference between llama.cpp's perplexity and torch's; 0.0001 was measured, a wrong
head order or rope base makes 0.5 and more."""

_CONTEXT, _WINDOWS = 128, 4
_PERPLEXITY = re.compile(rf"\[{_WINDOWS}\]([\d.]+),")  # "[1]90.4064,[2]34.0956,": up to each window
_LOCAL_PATH = re.compile(r"(?:^|[\s'\"=])(?:/|~/|[A-Za-z]:[\\/]|file:)[^\s]")


def metadata(gguf: Path) -> dict[str, Any]:
    """All key-value pairs of a GGUF.

    Raises:
        PipelineError: it is not a GGUF, or a truncated one.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(gguf)
        return {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    except (ValueError, IndexError, OSError) as error:
        raise PipelineError(f"{gguf}: not a whole GGUF file: {error}; run `dvc repro`, which makes it") from None


def local_paths(pairs: dict[str, Any]) -> list[str]:
    """The keys whose text holds a path on some machine; the vocabulary and the chat template may hold anything."""
    described = {key: value for key, value in pairs.items() if not key.startswith("tokenizer.")}
    return [key for key, value in described.items() if any(map(_LOCAL_PATH.search, _texts(value)))]


def require_metadata(gguf: Path, expected: dict[str, Any]) -> None:
    """Check the pairs in `expected`, that answers end with `<|im_end|>`, and that no local path is in it.

    Raises:
        PipelineError: the first that fails.
    """
    pairs = metadata(gguf)
    for key, value in expected.items():
        if pairs.get(key) != value:
            raise PipelineError(f"{gguf.name}: {key} is {pairs.get(key)!r} instead of {value!r}")
    end = pairs["tokenizer.ggml.tokens"][pairs["tokenizer.ggml.eos_token_id"]]
    if end != STOP:
        raise PipelineError(
            f"{gguf.name}: its end-of-text token is {end!r} instead of {STOP!r}; mend the base's config"
        )
    if found := local_paths(pairs):
        raise PipelineError(f"{gguf.name}: a local path in its metadata: {found[0]}")


def require_same_tokens(tokenize: Path, gguf: Path, text: str, expected: list[int]) -> None:
    """Compare llama.cpp's token ids for `text` with the original tokenizer's.

    Raises:
        PipelineError: they differ; names the place.
    """
    with _text_file(text) as path:
        printed = run_tool(
            [tokenize, "--model", gguf, "--file", path, "--ids", "--no-bos", "--no-escape"],
            what=f"reading the tokenizer of {gguf.name}",
            env=llama_cpp_environment(),
        )
    found = ast.literal_eval(printed.strip().splitlines()[-1])
    if found == expected:
        return
    pieces = metadata(gguf)["tokenizer.ggml.tokens"]
    at = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), len(found))
    raise PipelineError(
        f"{gguf.name}: llama.cpp splits text otherwise than the model's tokenizer: after "
        f"{_spell(expected[:at], pieces)!r} comes {_spell(found[at : at + 1], pieces)!r} instead of "
        f"{_spell(expected[at : at + 1], pieces)!r}; mend card.pre_tokenizer in the size's config"
    )


def require_same_perplexity(program: Path, gguf: Path, text: str, model: Any, ids: list[int]) -> None:
    """Compare what llama.cpp computes over `text` with what torch does over its token ids.

    Raises:
        PipelineError: llama.cpp cannot load the file, or the perplexities differ.
    """
    expected = perplexity(model, ids)
    with _text_file(text) as path:
        printed = run_tool(
            [
                *(program, "--model", gguf, "--file", path),
                *("--no-escape", "--ctx-size", str(_CONTEXT), "--batch-size", str(_CONTEXT)),
                *("--chunks", str(_WINDOWS), "--threads", str(os.cpu_count())),
            ],
            what=f"loading {gguf.name}",
            env=llama_cpp_environment(),
        )
    estimate = _PERPLEXITY.search(printed)
    found = float(estimate[1]) if estimate else math.nan
    if not abs(found / expected - 1) <= PERPLEXITY_TOLERANCE:  # a NaN is not
        raise PipelineError(
            f"{gguf.name}: llama.cpp does not compute what the model does: perplexity {found:.4g} instead of "
            f"{expected:.4g}; has the converter misread the base's config?"
        )


def perplexity(model: Any, ids: list[int]) -> float:
    """exp of the mean negative log-likelihood, as llama-perplexity takes it: four windows of 128
    tokens that share nothing, of each the second half scored (tools/perplexity/perplexity.cpp)."""
    import torch

    windows = torch.tensor(ids[: _WINDOWS * _CONTEXT]).view(_WINDOWS, _CONTEXT)
    with torch.inference_mode():
        logits = torch.cat([model(input_ids=window[None], use_cache=False).logits for window in windows])
    half = _CONTEXT // 2
    scored, answers = logits[:, half:-1].flatten(0, 1).double(), windows[:, half + 1 :].flatten()
    return math.exp(torch.nn.functional.cross_entropy(scored, answers).item())


@contextmanager
def _text_file(text: str) -> Iterator[Path]:
    with scratch_directory(CACHE / "text") as folder:
        path = folder / "text.txt"
        path.write_text(text, encoding="utf-8", newline="\n")
        yield path


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str)]


def _spell(ids: list[int], pieces: list[str]) -> str:
    """The last few of `ids` as text; byte-level pieces write a space as Ġ and a newline as Ċ."""
    return "".join(pieces[each] for each in ids[-8:]).replace("Ġ", " ").replace("Ċ", "\n")
