"""How much of the f16 model survives quantization: perplexity and KL divergence over the rendered test split.

In: models/<size>/<task>/f16, models/<size>/<task>/quants, data/dataset/test.jsonl, `fidelity` and `seed` of
params.yaml. Out: metrics/<size>/<task>/fidelity.json. Alone: `python -m stages.fidelity`; the tools' logs are
then in .cache/logs/.

llama-perplexity saves the f16's logits for a text and compares those of each quant with them, token by token. The
text is the test split, answers included, in the format of training. It is cut into windows of `context` tokens, of
each of which the second half is scored, whatever the token. The saved logits are big (25 MB a window for a
vocabulary of 49,152); they live in .cache/fidelity and are gone when the stage ends.
"""

import math
import os
import random
import re
import shutil
import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gguf import GGUFReader, TokenType

from stages.common.chat import STOP, render_turn
from stages.common.cli import run_stage
from stages.common.config import FidelityParams, fidelity_params, model_paths, seed
from stages.common.errors import PipelineError
from stages.common.files import read_json, read_jsonl, write_json
from stages.common.llama_cpp import llama_cpp_environment, tool
from stages.common.metrics import finite_or_none
from stages.common.paths import CACHE, TEST
from stages.common.progress import follow_tool

# llama-perplexity reads its text without special tokens (`common_tokenize` with parse_special false), which would
# break `<|im_end|>` into seven tokens that no model was trained on. In a copy of the f16 the two markers therefore
# bear another name and are ordinary added tokens, which are always read whole; no weight changes. The quants are
# given token ids, out of the file of logits, and need none of this.
MARKERS = {"<|im_start|>": "<|IM_START|>", STOP: "<|IM_END|>"}

_NUMBER = r"([-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf))"
_WINDOW = re.compile(rf"\[(\d+)\]{_NUMBER},", re.IGNORECASE)  # "[12]3.4567,": perplexity up to the 12th window
_DONE = re.compile(r"\[(\d+)\][-\d.naif]+,", re.IGNORECASE)
_COMPARED = re.compile(r"^ *(\d+) +(?:[-\d.naif]+) ±", re.MULTILINE)
_PLANNED = re.compile(r"over (\d+) chunks")
_QUANT_PERPLEXITY = re.compile(rf"Mean PPL\(Q\) *: *{_NUMBER}", re.IGNORECASE)
_KL_DIVERGENCE = re.compile(rf"Mean +KLD: *{_NUMBER}", re.IGNORECASE)
_COMPLAINT = re.compile(r"you need at least|tokenizes to only|failed|error|inconsistent", re.IGNORECASE)


@dataclass(frozen=True)
class Logits:
    """The head of a file that `llama-perplexity --kl-divergence-base` writes, before the logits themselves."""

    context: int
    vocabulary: int
    windows: int
    tokens: array
    """The ids of all windows, one after the other."""

    @property
    def scored(self) -> int:
        """How many tokens count: of each window the second half, but for the last, which predicts nothing."""
        return self.windows * _scored(self.context)

    @property
    def file_bytes(self) -> int:
        """The size of a whole file."""
        return 20 + 4 * len(self.tokens) + self.windows * window_bytes(self.context, self.vocabulary)


def render_rows(rows: Iterable[Mapping]) -> str:
    """ChatML of whole conversations, one after the other, with the markers renamed as in the copy."""
    text = "".join(render_turn(turn["role"], turn["content"]) for row in rows for turn in row["messages"])
    for marker, alias in MARKERS.items():
        text = text.replace(marker, alias)
    return text


def copy_with_readable_markers(model: Path, copy: Path) -> list[int]:
    """Copy a GGUF so that llama-perplexity reads the chat markers as one token each; return their ids.

    Raises:
        PipelineError: the model has no such token.
    """
    shutil.copyfile(model, copy)
    reader = GGUFReader(copy, "r+")
    tokens, types = reader.fields["tokenizer.ggml.tokens"], reader.fields["tokenizer.ggml.token_type"]
    ids = {bytes(tokens.parts[part]): index for index, part in enumerate(tokens.data)}
    for marker, alias in MARKERS.items():
        if marker.encode() not in ids:
            raise PipelineError(f"{model}: no token {marker}; the base model must have the ChatML tokens")
        index = ids[marker.encode()]
        tokens.parts[tokens.data[index]][:] = list(alias.encode())
        types.parts[types.data[index]][0] = TokenType.USER_DEFINED
    reader.data.flush()
    return [ids[marker.encode()] for marker in MARKERS]


def vocabulary_size(model: Path) -> int:
    """How many tokens a GGUF's vocabulary has."""
    return len(GGUFReader(model).fields["tokenizer.ggml.tokens"].data)


def window_bytes(context: int, vocabulary: int) -> int:
    """What one window takes in a file of logits: a scale, a minimum and 16 bits a logit, for each scored token
    (tools/perplexity/perplexity.cpp, `nv`)."""
    return _scored(context) * 2 * (2 * ((vocabulary + 1) // 2) + 4)


def read_logits_head(path: Path) -> Logits:
    """Read the head of a file of logits and check that the file is whole.

    Raises:
        PipelineError: it is not; llama-perplexity does not notice when the disk is full.
    """
    with path.open("rb") as file:
        head = file.read(20)
        if len(head) < 20 or not head.startswith(b"_logits_"):
            raise PipelineError(f"{path}: no logits in it; is the disk full? free some space and run again")
        context, vocabulary, windows = struct.unpack("<3i", head[8:])
        tokens = array("i", file.read(4 * context * windows))
    logits = Logits(context, vocabulary, windows, tokens)
    if path.stat().st_size != logits.file_bytes or len(tokens) != context * windows:
        raise PipelineError(
            f"{path}: {path.stat().st_size} of {logits.file_bytes} bytes were written; is the disk full? free "
            "some space or lower fidelity.chunks in params.yaml, and run again"
        )
    return logits


def perplexity_in(output: str) -> float:
    """The perplexity over all windows out of what llama-perplexity printed; NaN and infinities are values here.

    Raises:
        PipelineError: there is none.
    """
    found = _WINDOW.findall(output)
    if not found:
        raise PipelineError(f"llama-perplexity gave no perplexity: {_complaint(output)}")
    return float(found[-1][1])


def comparison_in(output: str) -> tuple[float, float]:
    """The quant's perplexity and its mean KL divergence (nats a token) against the f16, out of what
    `llama-perplexity --kl-divergence` printed.

    Raises:
        PipelineError: one of them is not there (the tool's exit status is 0 all the same).
    """
    perplexity, divergence = _QUANT_PERPLEXITY.search(output), _KL_DIVERGENCE.search(output)
    if perplexity is None or divergence is None:
        raise PipelineError(f"llama-perplexity gave no KL divergence: {_complaint(output)}")
    return float(perplexity.group(1)), float(divergence.group(1))


def figures(f16: float, quants: Mapping[str, tuple[float, float]], tokens: int) -> dict[str, dict]:
    """The metrics of the f16 and of each quant, `(perplexity, KL divergence)`; null for what is not finite."""
    found: dict[str, dict] = {"f16": {"perplexity": finite_or_none(f16), "perplexity_tokens": tokens}}
    for quant, (perplexity, divergence) in quants.items():
        ratio = perplexity / f16 if f16 else math.nan
        found[quant] = {
            "perplexity": finite_or_none(perplexity),
            "perplexity_ratio": finite_or_none(round(ratio, 6)),
            "perplexity_tokens": tokens,
            "kl_divergence": finite_or_none(divergence),
            "kl_divergence_tokens": tokens,
        }
    return found


def measure(
    executable: Path, f16: Path, quants: Mapping[str, Path], text: str, params: FidelityParams, folder: Path
) -> dict[str, dict]:
    """Run llama-perplexity on the f16 and on each quant, over the same tokens; `folder` holds the big files."""
    _require_space(f16, params, folder)
    (folder / "test.txt").write_text(text, encoding="utf-8", newline="\n")
    logits_file = folder / "f16.logits"
    markers = copy_with_readable_markers(f16, folder / "f16.gguf")
    command = [executable, "--ctx-size", str(params.context), "--batch-size", str(params.context)]
    command += ["--threads", str(len(os.sched_getaffinity(0))), "--kl-divergence-base", logits_file]
    command += ["--no-escape"]  # a backslash in a command is one
    output = follow_tool(
        [*command, "--model", folder / "f16.gguf", "--file", folder / "test.txt", "--chunks", str(params.chunks)],
        what="perplexity of the f16",
        counter=_DONE,
        total=_PLANNED,
        log=CACHE / "logs/llama-perplexity-f16.log",
        blame=_COMPLAINT,
        env=llama_cpp_environment(),
    )
    perplexity = perplexity_in(output)
    logits = read_logits_head(logits_file)
    if not set(markers) <= set(logits.tokens):
        raise PipelineError("llama-perplexity did not read the chat markers as tokens; report this as a defect")
    (folder / "f16.gguf").unlink()
    compared = {}
    for quant, model in quants.items():
        output = follow_tool(
            [*command, "--model", model, "--kl-divergence"],
            what=f"KL divergence of the {quant}",
            counter=_COMPARED,
            total=logits.windows,
            log=CACHE / f"logs/llama-perplexity-{quant}.log",
            blame=_COMPLAINT,
            env=llama_cpp_environment(),
        )
        compared[quant] = comparison_in(output)
    return figures(perplexity, compared, logits.scored)


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


def _scored(context: int) -> int:
    return context - 1 - context // 2


def _require_space(f16: Path, params: FidelityParams, folder: Path) -> None:
    needed = params.chunks * window_bytes(params.context, vocabulary_size(f16)) + f16.stat().st_size
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
    rows = [row for _, row in read_jsonl(TEST)]
    random.Random(seed()).shuffle(rows)  # the windows are the first of the text: of all shells and families
    found = sorted(paths.f16.glob("*.gguf"))
    if len(found) != 1:
        raise PipelineError(f"{paths.f16}: {len(found)} GGUF files instead of one; run `dvc repro convert`")
    quants = {quant: paths.quants / file for quant, file in read_json(paths.quants / "quants.json").items()}
    with scratch_folder() as folder:
        result = measure(tool("llama-perplexity"), found[0], quants, render_rows(rows), params, folder)
    write_json(paths.metrics / "fidelity.json", result)


if __name__ == "__main__":
    run_stage("fidelity", main)
