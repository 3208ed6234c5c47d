"""Quantizing: named for the clients, by a matrix of the training text, each file loaded, nothing half-made."""

import json
import random
import re
import subprocess
from pathlib import Path
from typing import get_args

import pytest
from tiny_adapter import TINY

from stages import convert, quantize
from stages.common.chat import STOP, system_prompt
from stages.common.config import Quant
from stages.common.errors import PipelineError
from stages.common.files import read_json
from stages.common.llama_cpp import tool
from stages.common.paths import TRAIN
from stages.converting import checks

NAME = "tiny-correct-1M"


def row(number: int) -> dict:
    return {
        "messages": [
            {"role": "system", "content": system_prompt("bash")},
            {"role": "user", "content": f"gti show {number}"},
            {"role": "assistant", "content": f"git show {number}"},
        ]
    }


@pytest.fixture
def converted(trained: Path) -> Path:
    convert.main()
    TRAIN.parent.mkdir(parents=True)
    TRAIN.write_text("".join(json.dumps(row(number)) + "\n" for number in range(200)))
    return trained


def list_quants(*quants: str) -> None:
    path = Path("params.yaml")
    text = path.read_text(encoding="utf-8")
    assert "    - Q4_K_M\n" in text
    path.write_text(text.replace("    - Q4_K_M\n", "".join(f"    - {quant}\n" for quant in quants)))


def test_the_first_quant_bears_the_name_that_clients_ask_for():
    assert quantize.file_names("qwen3-correct-0.6B", ["Q4_K_M", "Q8_0"]) == {
        "Q4_K_M": "qwen3-correct-0.6B.gguf",
        "Q8_0": "qwen3-correct-0.6B-Q8_0.gguf",
    }


def test_the_sample_is_drawn_by_the_seed_and_holds_whole_conversations():
    rows = [row(number) for number in range(50)]

    text = quantize.sample_text(rows, 10, random.Random(1))

    assert text == quantize.sample_text(rows, 10, random.Random(1))
    assert text != quantize.sample_text(rows, 10, random.Random(2))
    assert text.count("<|im_start|>assistant\ngit show ") == 10
    assert text.count(STOP) == 30


def test_a_small_train_split_is_taken_whole():
    assert quantize.sample_text([row(1), row(2)], 1500, random.Random(1)).count("<|im_start|>user") == 2


def test_without_an_f16_the_missing_file_is_named(worktree):
    with pytest.raises(PipelineError, match=r"f16/smollm2-correct-135M-f16\.gguf: not there; run `dvc repro`"):
        quantize.main()


@pytest.mark.slow
def test_the_stage_makes_every_quant_of_the_list(converted):
    list_quants("Q4_K_M", "Q8_0")

    quantize.main()

    files = {"Q4_K_M": f"{NAME}.gguf", "Q8_0": f"{NAME}-Q8_0.gguf"}
    assert read_json(TINY.quants / "quants.json") == files
    assert {path.name for path in TINY.quants.iterdir()} == {*files.values(), "quants.json"}
    f16 = checks.metadata(TINY.f16 / f"{NAME}-f16.gguf")
    for quant, file in files.items():
        pairs = checks.metadata(TINY.quants / file)
        assert checks.local_paths(pairs) == []
        assert pairs["quantize.imatrix.chunks_count"] > 5, quant
        assert pairs["tokenizer.chat_template"] == f16["tokenizer.chat_template"]
    sizes = [(TINY.quants / file).stat().st_size for file in files.values()]
    assert sizes[0] < sizes[1] < (TINY.f16 / f"{NAME}-f16.gguf").stat().st_size


@pytest.mark.slow
def test_a_quant_that_fails_is_one_line_and_leaves_what_was_there(converted):
    quantize.main()
    before = (TINY.quants / "quants.json").read_bytes()
    f16 = TINY.f16 / f"{NAME}-f16.gguf"
    f16.write_bytes(f16.read_bytes()[: f16.stat().st_size // 2])

    with pytest.raises(PipelineError, match="failed") as raised:
        quantize.main()

    assert "\n" not in str(raised.value)
    assert (TINY.quants / "quants.json").read_bytes() == before
    assert list(TINY.quants.parent.glob(".quants*")) == []


@pytest.mark.slow
def test_llama_quantize_makes_every_quant_that_params_may_name():
    """llama-quantize has no option that lists them; its usage does."""
    usage = subprocess.run([tool("llama-quantize"), "--help"], capture_output=True, text=True).stdout
    assert set(get_args(Quant)) <= set(re.findall(r"^ +\d+ +or +(\w+)", usage, re.MULTILINE))


@pytest.mark.slow
def test_a_file_that_llama_cpp_does_not_load_is_refused(converted):
    broken = TINY.f16 / "broken.gguf"
    whole = (TINY.f16 / f"{NAME}-f16.gguf").read_bytes()
    broken.write_bytes(whole[:-100_000])

    with pytest.raises(PipelineError, match=r"not a whole GGUF|before it was ready"):
        quantize.require_loadable(broken)
