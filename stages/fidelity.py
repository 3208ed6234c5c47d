"""How much of the f16 model survives quantization: perplexity and KL divergence of the answers of the test split.

In: models/<size>/<task>/f16, models/<size>/<task>/quants, data/dataset/test.jsonl, `fidelity` and `seed` of
params.yaml, `left_as_typed` of configs/<size>.yaml. Out: metrics/<size>/<task>/fidelity.json. Alone:
`python -m stages.fidelity`; the tools' logs are then in .cache/logs/.

llama-perplexity saves what the f16 and each quant expect of every token of a text: the test split in the
format of training, cut into windows of `context` tokens, of each of which the second half is scored.
Counted are the answers' tokens alone. The others are the prompt and what people typed, which no client asks
the model for, and which a model expects less while it learns to answer (measured: over everything
perplexity rose from 3.9 to 6.7 when exact match rose from 0.77 to 0.89). The saved logits are big (25 MB a
window for a vocabulary of 49,152); they live in .cache/fidelity and are gone when the stage ends.
"""

import math
import os
import random
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gguf import GGUFReader, TokenType

from stages.common.chat import STOP, as_taught, render_turn
from stages.common.cli import run_stage
from stages.common.config import FidelityParams, fidelity_params, left_as_typed, model_paths, seed, task
from stages.common.errors import PipelineError
from stages.common.files import read_json_object, read_jsonl, write_json
from stages.common.llama_cpp import llama_cpp_environment, tool
from stages.common.metrics import finite_or_none
from stages.common.paths import CACHE, TEST
from stages.common.progress import follow_tool
from stages.measuring.logits import (
    ChatTokens,
    Logits,
    answers,
    count,
    kl_divergence,
    perplexity,
    read_logits,
    window_bytes,
)

# llama-perplexity reads its text without special tokens (`common_tokenize` with parse_special false), which would
# break `<|im_end|>` into seven tokens that no model was trained on. In a copy of the f16 the two markers therefore
# bear another name and are ordinary added tokens, which are always read whole; no weight changes. The quants are
# given token ids, out of the file of logits, and need none of this.
MARKERS = {"<|im_start|>": "<|IM_START|>", STOP: "<|IM_END|>"}

NEWLINE = "Ċ"  # as byte-level tokenizers write it

_DONE = re.compile(r"\[(\d+)\][-\d.naif]+,", re.IGNORECASE)  # "[12]3.4567,": perplexity up to the 12th window
_PLANNED = re.compile(r"over (\d+) chunks")
_COMPLAINT = re.compile(r"you need at least|tokenizes to only|failed|error|inconsistent", re.IGNORECASE)


def render_rows(rows: Iterable[Mapping]) -> str:
    """ChatML of whole conversations, one after the other, with the markers renamed as in the copy."""
    text = "".join(render_turn(turn["role"], turn["content"]) for row in rows for turn in row["messages"])
    for marker, alias in MARKERS.items():
        text = text.replace(marker, alias)
    return text


def copy_with_readable_markers(model: Path, copy: Path) -> ChatTokens:
    """Copy a GGUF so that llama-perplexity reads the chat markers as one token each.

    Raises:
        PipelineError: the model has no such token.
    """
    shutil.copyfile(model, copy)
    reader = _reader(copy, model, "r+")
    tokens, types = reader.fields["tokenizer.ggml.tokens"], reader.fields["tokenizer.ggml.token_type"]
    ids = {bytes(tokens.parts[part]): index for index, part in enumerate(tokens.data)}
    for marker in (*MARKERS, NEWLINE):
        if marker.encode() not in ids:
            raise PipelineError(f"{model}: no token {marker}; the base model must have the ChatML tokens")
    for marker, alias in MARKERS.items():
        index = ids[marker.encode()]
        tokens.parts[tokens.data[index]][:] = list(alias.encode())
        types.parts[types.data[index]][0] = TokenType.USER_DEFINED
    reader.data.flush()
    return ChatTokens(*(ids[marker.encode()] for marker in (*MARKERS, NEWLINE)))


def _reader(file: Path, model: Path, mode: str = "r") -> GGUFReader:
    """The open GGUF `file`, which is `model` or a copy of it.

    Raises:
        PipelineError: it is not whole.
    """
    try:
        return GGUFReader(file, mode)
    except (ValueError, IndexError) as error:
        raise PipelineError(f"{model}: not a whole GGUF file: {error}; run `dvc repro`, which makes it") from None


def vocabulary_size(model: Path) -> int:
    """How many tokens a GGUF's vocabulary has."""
    return len(_reader(model, model).fields["tokenizer.ggml.tokens"].data)


def figures(f16: float, quants: Mapping[str, tuple[float, float]], tokens: int) -> dict[str, dict]:
    """The metrics of the f16 and of each quant, `(perplexity, KL divergence)`; null for what is not finite.

    All are over the same `tokens`, so that their number is written down once.
    """
    found: dict[str, dict] = {"f16": {"perplexity": _rounded(f16), "perplexity_tokens": tokens}}
    for quant, (of_quant, divergence) in quants.items():
        found[quant] = {
            "perplexity": _rounded(of_quant),
            "perplexity_ratio": _rounded(of_quant / f16 if f16 else math.nan),
            "kl_divergence": _rounded(divergence),
        }
    return found


def _rounded(figure: float) -> float | None:
    return finite_or_none(round(figure, 6))


def measure(
    executable: Path, f16: Path, quants: Mapping[str, Path], text: str, params: FidelityParams, folder: Path
) -> dict[str, dict]:
    """Run llama-perplexity on the f16 and on each quant, over the same tokens; `folder` holds the big files."""
    _require_space(f16, params, folder)
    (folder / "test.txt").write_text(text, encoding="utf-8", newline="\n")
    chat, reference = save_logits(executable, "f16", f16, params, folder)
    chosen = answers(reference.tokens, chat)
    compared = {}
    for quant, model in quants.items():
        _, logits = save_logits(executable, quant, model, params, folder)
        compared[quant] = perplexity(logits, chosen), kl_divergence(reference, logits, chosen)
        logits.path.unlink()
    return figures(perplexity(reference, chosen), compared, count(reference, chosen))


def save_logits(
    executable: Path, name: str, model: Path, params: FidelityParams, folder: Path
) -> tuple[ChatTokens, Logits]:
    """What a model expects of the text in the folder.

    Raises:
        PipelineError: llama-perplexity fails or writes no whole file.
    """
    copy, saved = folder / "model.gguf", folder / f"{name}.logits"
    chat = copy_with_readable_markers(model, copy)
    command = [executable, "--ctx-size", str(params.context), "--batch-size", str(params.context)]
    command += ["--threads", str(len(os.sched_getaffinity(0))), "--chunks", str(params.chunks)]
    command += ["--no-escape"]  # a backslash in a command is one
    output = follow_tool(
        [*command, "--model", copy, "--file", folder / "test.txt", "--kl-divergence-base", saved],
        what=f"perplexity of the {name}",
        counter=_DONE,
        total=_PLANNED,
        log=CACHE / f"logs/llama-perplexity-{name}.log",
        blame=_COMPLAINT,
        env=llama_cpp_environment(),
    )
    copy.unlink()
    if not saved.is_file():  # its exit status is 0 all the same
        raise PipelineError(f"llama-perplexity gave no perplexity: {_complaint(output)}")
    return chat, read_logits(saved)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder in .cache, which a killed run may have left full, and which is removed at the end."""
    folder = CACHE / "fidelity"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _require_space(f16: Path, params: FidelityParams, folder: Path) -> None:
    # the f16's logits beside those of the quant in hand
    needed = 2 * params.chunks * window_bytes(params.context, vocabulary_size(f16)) + f16.stat().st_size
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PipelineError(
            f"{folder}: {needed / 1e9:.1f} GB are needed for a while and {free / 1e9:.1f} GB are free; free some "
            "space, or lower fidelity.chunks in params.yaml"
        )


def _complaint(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    complaints = [line for line in lines if _COMPLAINT.search(line)]
    return (complaints or lines or ["it printed nothing"])[-1]


def main() -> None:
    """Measure the size in hand."""
    params = fidelity_params()
    paths = model_paths()
    rows = [as_taught(row, task(), left_as_typed()) for _, row in read_jsonl(TEST)]
    random.Random(seed()).shuffle(rows)  # the windows are the first of the text: of all shells and families
    found = sorted(paths.f16.glob("*.gguf"))
    if len(found) != 1:
        raise PipelineError(f"{paths.f16}: {len(found)} GGUF files instead of one; run `dvc repro convert`")
    quants = {quant: paths.quants / file for quant, file in read_json_object(paths.quants / "quants.json").items()}
    with scratch_folder() as folder:
        result = measure(tool("llama-perplexity"), found[0], quants, render_rows(rows), params, folder)
    write_json(paths.metrics / "fidelity.json", result)


if __name__ == "__main__":
    run_stage("fidelity", main)
