"""Stage `quantize`: the f16 GGUF becomes smaller ones, by an importance matrix of the training text.

In: models/<size>/<task>/f16, data/dataset/train.jsonl, `quantize` and `seed` of params.yaml, `card` of
configs/<model_size>.yaml, data/llama_cpp.yaml. Out: models/<size>/<task>/quants: the first quant of the list as
<name>.gguf, which is what clients download, further ones as <name>-<QUANT>.gguf, and quants.json, which maps each
quant to its file. Alone: `python -m stages.quantize`.
"""

import os
import random
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stages.common.chat import Decoding, render_turn
from stages.common.cli import run_stage
from stages.common.config import model_card, model_paths, quantize_params, seed
from stages.common.errors import PipelineError
from stages.common.files import read_jsonl, replace_directory, write_json
from stages.common.llama_cpp import llama_cpp_environment, tool
from stages.common.paths import CACHE, TRAIN
from stages.common.progress import follow_tool
from stages.common.server import serve
from stages.converting.checks import local_paths, metadata

_CONTEXT = 512
_WINDOWS = re.compile(r"computing over (\d+) chunks")
_WINDOW = re.compile(r"\[(\d+)\]")  # "[12]3.4567,": the perplexity so far, after each window
_TENSOR = re.compile(r"^\[ *(\d+)/ *(\d+)\]", re.MULTILINE)
_COMPLAINT = re.compile(r"invalid ftype|need at least|failed to|error", re.IGNORECASE)
_LOGS = CACHE / "logs"


def file_names(name: str, quants: Sequence[str]) -> dict[str, str]:
    """The file of each quant, in the order of the list; the first bears the bare name that clients ask for."""
    return {quant: f"{name}-{quant}.gguf" if i else f"{name}.gguf" for i, quant in enumerate(quants)}


def sample_text(rows: Iterable[Mapping], count: int, draw: random.Random) -> str:
    """ChatML of `count` conversations drawn from `rows` (all, where there are fewer), answers included."""
    rows = list(rows)
    drawn = draw.sample(rows, min(count, len(rows)))
    return "".join(render_turn(turn["role"], turn["content"]) for row in drawn for turn in row["messages"])


def importance_matrix(model: Path, text: Path, out: Path) -> None:
    """Mean squared activations of the model over `text`, one row of weights a tensor.

    The tool runs in the text's folder and is given bare names, since it writes them into its output.

    Raises:
        PipelineError: llama.cpp fails, or the text is shorter than a window of 512 tokens.
    """
    follow_tool(
        [
            *(tool("llama-imatrix"), "--model", model.resolve(), "--file", text.name, "--output-file", out.name),
            # the chat markers are tokens, and a backslash in a command is one
            *("--parse-special", "--no-escape", "--threads", str(os.cpu_count())),
            *("--ctx-size", str(_CONTEXT), "--batch-size", str(_CONTEXT)),
        ],
        what="measuring which weights matter",
        counter=_WINDOW,
        total=_WINDOWS,
        log=_LOGS / "imatrix.log",
        blame=_COMPLAINT,
        cwd=text.parent,
        writes=out.parent,
        env=llama_cpp_environment(),
    )


def quantize(model: Path, imatrix: Path, quant: str, out: Path) -> None:
    """Write `model` in the given quant to `out`.

    Raises:
        PipelineError: llama.cpp fails or does not know the quant.
    """
    follow_tool(
        [tool("llama-quantize"), "--imatrix", imatrix.name, model.resolve(), out.resolve(), quant],
        what=f"quantizing to {quant}",
        counter=_TENSOR,
        log=_LOGS / f"quantize-{quant}.log",
        blame=_COMPLAINT,
        cwd=imatrix.parent,
        writes=out.parent,
        env=llama_cpp_environment(),
    )


def require_loadable(gguf: Path) -> None:
    """Let llama.cpp load the whole file and take one step with it.

    Raises:
        PipelineError: it does not load, or its metadata names a path on this machine.
    """
    if found := local_paths(metadata(gguf)):
        raise PipelineError(f"{gguf.name}: a local path in its metadata: {found[0]}")
    with serve(tool("llama-server"), gguf, slots=1, context=64, log=_LOGS / "load.log") as server:
        server.complete("a", Decoding(max_tokens=1, stops=()))


def main() -> None:
    """Make every quant of the list for the size in hand."""
    paths, card, params = model_paths(), model_card(), quantize_params()
    files = file_names(card.name, params.quants)
    model = paths.f16 / f"{card.name}-f16.gguf"
    if not model.is_file():
        raise PipelineError(f"{model}: not there; run `dvc repro`, which makes it")
    rows = (row for _, row in read_jsonl(TRAIN))
    with replace_directory(paths.quants) as out:
        work = out / "work"
        work.mkdir()
        text = work / "training-text.txt"
        text.write_text(
            sample_text(rows, params.imatrix_rows, random.Random(seed())), encoding="utf-8", newline="\n"
        )
        imatrix = work / "imatrix.gguf"
        importance_matrix(model, text, imatrix)
        for quant, file in files.items():
            quantize(model, imatrix, quant, out / file)
            require_loadable(out / file)
        shutil.rmtree(work)
        write_json(out / "quants.json", files)


if __name__ == "__main__":
    run_stage("quantize", main)
