"""Perplexity and KL divergence: the text, the tokens it is read as, what the tool prints, a disk that is full."""

import math
import struct
import sys
from pathlib import Path

import pytest
from gguf import GGUFReader, GGUFWriter, TokenType

from stages.common.config import FidelityParams
from stages.common.errors import PipelineError
from stages.common.files import write_json
from stages.fidelity import (
    comparison_in,
    copy_with_readable_markers,
    figures,
    measure,
    perplexity_in,
    read_logits_head,
    render_rows,
    scratch_folder,
    vocabulary_size,
    window_bytes,
)

F16_OUTPUT = """\
perplexity: calculating perplexity over 3 chunks, n_ctx=512, batch_size=512, n_seq=1
perplexity: 1.10 seconds per pass - ETA 0.05 minutes
[1]2.5012,[2]2.4120,[3]2.3456,
Final estimate: PPL = 2.3456 +/- 0.05678
"""
QUANT_OUTPUT = """\
chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence
   1       2.6000 ±    0.1000       0.03870 ±    0.00900       0.04100 ±    0.00300

====== Perplexity statistics ======
Mean PPL(Q)                   :   2.412345 ±   0.060000
Mean PPL(base)                :   2.345678 ±   0.056780
Mean PPL(Q)/PPL(base)         :   1.028421 ±   0.003000

====== KL divergence statistics ======
Mean    KLD:   0.031415 ±   0.000900
Maximum KLD:   1.234567
Median  KLD:   0.010000
"""

STAND_IN = '''#!{python}
"""A stand-in for llama-perplexity: writes logits of a vocabulary of five, or compares with those it finds."""
import struct, sys
from pathlib import Path
logits = Path(sys.argv[sys.argv.index("--kl-divergence-base") + 1])
if "--kl-divergence" in sys.argv:
    assert logits.read_bytes().startswith(b"_logits_")
    print("""{quant}""")
else:
    tokens = struct.pack("<24i", *[1, 2, 3, 4, 0, 0, 0, 0] * 3)
    logits.write_bytes(b"_logits_" + struct.pack("<3i", 8, 5, 3) + tokens + bytes(3 * 3 * 2 * 10))
    print("""{f16}""")
'''


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A GGUF with a vocabulary and no weights."""
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "<|im_start|>", "b", "<|im_end|>", "c"])
    writer.add_token_types(
        [TokenType.NORMAL, TokenType.CONTROL, TokenType.NORMAL, TokenType.CONTROL, TokenType.NORMAL]
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def write_logits(path: Path, context: int, vocabulary: int, windows: int, *, missing: int = 0) -> Path:
    body = bytes(4 * context * windows + windows * window_bytes(context, vocabulary))
    head = b"_logits_" + struct.pack("<3i", context, vocabulary, windows)
    path.write_bytes((head + body)[: len(head) + len(body) - missing])
    return path


def tokens_of(path: Path) -> list[tuple[str, int]]:
    fields = GGUFReader(path).fields
    tokens, types = fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.token_type"].contents()
    return list(zip(tokens, types, strict=True))


def test_rows_are_rendered_as_in_training_with_markers_that_the_tool_reads():
    row = {"messages": [{"role": "user", "content": "gti"}, {"role": "assistant", "content": "git"}]}
    turns = "<|IM_START|>user\ngti<|IM_END|>\n<|IM_START|>assistant\ngit<|IM_END|>\n"
    assert render_rows([row, row]) == turns * 2


def test_the_copy_differs_from_the_model_in_its_two_markers_only(model: Path, tmp_path: Path):
    ids = copy_with_readable_markers(model, tmp_path / "copy.gguf")
    before, after = tokens_of(model), tokens_of(tmp_path / "copy.gguf")
    assert ids == [1, 3]
    assert [after[index] for index in ids] == [
        ("<|IM_START|>", TokenType.USER_DEFINED),
        ("<|IM_END|>", TokenType.USER_DEFINED),
    ]
    assert [after[index] for index in (0, 2, 4)] == [before[index] for index in (0, 2, 4)]
    assert vocabulary_size(tmp_path / "copy.gguf") == 5


def test_a_model_without_the_markers_is_refused(tmp_path: Path):
    path = tmp_path / "other.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_token_list(["a"])
    writer.add_token_types([TokenType.NORMAL])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(PipelineError, match=r"no token <\|im_start\|>"):
        copy_with_readable_markers(path, tmp_path / "copy.gguf")


def test_figures_are_read_out_of_what_the_tool_prints():
    assert perplexity_in(F16_OUTPUT) == 2.3456
    assert comparison_in(QUANT_OUTPUT) == (2.412345, 0.031415)


@pytest.mark.parametrize("text", ["nan", "-nan", "inf"])
def test_a_figure_that_is_no_number_is_written_as_null(text: str, tmp_path: Path):
    f16 = perplexity_in(F16_OUTPUT.replace("2.3456,", f"{text},"))
    quant = comparison_in(QUANT_OUTPUT.replace("2.412345", text).replace("0.031415", text))
    assert not math.isfinite(f16)
    found = figures(f16, {"Q4_K_M": quant}, 99)
    write_json(tmp_path / "fidelity.json", found)
    assert found["f16"]["perplexity"] is None
    assert [found["Q4_K_M"][name] for name in ("perplexity", "perplexity_ratio", "kl_divergence")] == [None] * 3


def test_the_ratio_is_the_quants_perplexity_to_the_f16s():
    found = figures(2.0, {"Q4_K_M": (2.1, 0.03)}, 510)["Q4_K_M"]
    assert found["perplexity_ratio"] == pytest.approx(1.05)
    assert (found["perplexity_tokens"], found["kl_divergence_tokens"]) == (510, 510)


@pytest.mark.parametrize(
    "output", ["", "perplexity: you need at least 1024 tokens to evaluate perplexity with a context of 512\n"]
)
def test_output_without_figures_is_an_error_that_quotes_the_tool(output: str):
    quoted = "1024 tokens" if output else "printed nothing"
    with pytest.raises(PipelineError, match=f"no perplexity: .*{quoted}"):
        perplexity_in(output)
    with pytest.raises(PipelineError, match=f"no KL divergence: .*{quoted}"):
        comparison_in(output)


def test_the_head_of_whole_logits_tells_how_many_tokens_were_scored(tmp_path: Path):
    logits = read_logits_head(write_logits(tmp_path / "f16.logits", 512, 49152, 2))
    assert (logits.windows, logits.scored, len(logits.tokens)) == (2, 2 * 255, 1024)


@pytest.mark.parametrize("missing", [1, 100_000])
def test_logits_that_a_full_disk_cut_short_are_an_error(tmp_path: Path, missing: int):
    path = write_logits(tmp_path / "f16.logits", 64, 1001, 3, missing=missing)
    with pytest.raises(PipelineError, match="is the disk full"):
        read_logits_head(path)


def test_too_little_space_is_said_before_the_work_begins(model: Path, tmp_path: Path):
    params = FidelityParams(chunks=10**12, context=512)
    with pytest.raises(PipelineError, match="GB are needed for a while"):
        measure(tmp_path / "unused", model, {}, "", params, tmp_path)
    assert not (tmp_path / "f16.gguf").exists()


def test_the_f16_and_each_quant_are_measured_over_the_same_tokens(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "llama-perplexity"
    program.write_text(STAND_IN.format(python=sys.executable, f16=F16_OUTPUT, quant=QUANT_OUTPUT))
    program.chmod(0o755)
    quants = {name: tmp_path / f"{name}.gguf" for name in ("Q4_K_M", "Q8_0")}
    params = FidelityParams(chunks=3, context=8)
    with scratch_folder() as folder:
        found = measure(program, model, quants, "text", params, folder)
    assert found["f16"] == {"perplexity": 2.3456, "perplexity_tokens": 3 * 3}
    assert list(found) == ["f16", "Q4_K_M", "Q8_0"]
    assert found["Q8_0"]["perplexity_ratio"] == pytest.approx(2.412345 / 2.3456, abs=1e-6)
    assert found["Q8_0"]["kl_divergence"] == 0.031415


def test_the_scratch_folder_starts_empty_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    left_by_a_killed_run = tmp_path / ".cache/fidelity/f16.logits"
    left_by_a_killed_run.parent.mkdir(parents=True)
    left_by_a_killed_run.write_bytes(b"half")
    with scratch_folder() as folder:
        assert list(folder.iterdir()) == []
        (folder / "f16.logits").write_bytes(b"whole")
    assert not folder.exists()
