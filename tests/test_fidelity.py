"""Perplexity and KL divergence of the answers: the text, its tokens, the files of logits, a disk that is full."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter, TokenType
from programs import write_program

from stages.common.config import FidelityParams
from stages.common.errors import PipelineError
from stages.common.files import write_json
from stages.fidelity import (
    copy_with_readable_markers,
    figures,
    measure,
    render_rows,
    scratch_folder,
    vocabulary_size,
)
from stages.measuring.logits import ChatTokens, answers, count, kl_divergence, perplexity, read_logits

START, STOP, NEWLINE, WORD, OTHER = 1, 3, 5, 0, 2
CHAT = ChatTokens(START, STOP, NEWLINE)
VOCABULARY = 6
CONVERSATION = [
    *(START, WORD, NEWLINE, OTHER, STOP, NEWLINE),  # system
    *(START, WORD, NEWLINE, OTHER, NEWLINE, OTHER, STOP, NEWLINE),  # user, of two lines
    *(START, WORD, NEWLINE, OTHER, WORD, STOP, NEWLINE),  # assistant: three tokens to answer
]

STAND_IN = '''"""A stand-in for llama-perplexity: gives the file of logits that lies beside the model's twin."""
import shutil, sys
from pathlib import Path
saved = Path(sys.argv[sys.argv.index("--kl-divergence-base") + 1])
source = Path({source!r}) / saved.name
if source.exists():
    shutil.copy(source, saved)
print("""{says}""")
'''


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A GGUF with a vocabulary and no weights."""
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "<|im_start|>", "b", "<|im_end|>", "c", "Ċ"])
    writer.add_token_types(
        [
            TokenType.NORMAL,
            TokenType.CONTROL,
            TokenType.NORMAL,
            TokenType.CONTROL,
            TokenType.NORMAL,
            TokenType.NORMAL,
        ]
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def write_logits(path: Path, tokens: np.ndarray, log_probabilities: np.ndarray) -> Path:
    """A file as llama-perplexity writes it: `tokens` [W, C], `log_probabilities` [W, S, V] down to -16."""
    windows, context = tokens.shape
    vocabulary = log_probabilities.shape[2]
    scale = 16 / 65535
    with path.open("wb") as file:
        file.write(b"_logits_" + struct.pack("<3i", context, vocabulary, windows))
        file.write(tokens.astype(np.int32).tobytes())
        for row in log_probabilities.reshape(-1, vocabulary):
            file.write(struct.pack("<2f", scale, -16))
            file.write(np.round((row + 16) / scale).astype(np.uint16).tobytes() + bytes(2 * (vocabulary % 2)))
    return path


def expecting(tokens: np.ndarray, answer: float, other: float) -> np.ndarray:
    """[W, S, V] of a model that gives an answer's token the probability `answer`, any other `other`."""
    context = tokens.shape[1]
    first = context // 2 + 1
    of_answer = answers(tokens, CHAT)[:, first:]
    right = np.where(of_answer, answer, other)
    rest = np.repeat(((1 - right) / (VOCABULARY - 1))[..., None], VOCABULARY, axis=2)
    np.put_along_axis(rest, tokens[:, first:, None], right[..., None], axis=2)
    return np.log(rest)


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
    assert ids == CHAT
    assert [after[index] for index in (ids.start, ids.stop)] == [
        ("<|IM_START|>", TokenType.USER_DEFINED),
        ("<|IM_END|>", TokenType.USER_DEFINED),
    ]
    assert [after[index] for index in (0, 2, 4, 5)] == [before[index] for index in (0, 2, 4, 5)]
    assert vocabulary_size(tmp_path / "copy.gguf") == VOCABULARY


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


def test_of_a_text_the_answers_and_their_stops_count():
    tokens = np.array([CONVERSATION + CONVERSATION])
    found = answers(tokens, CHAT)[0]
    assert [int(place) for place in np.flatnonzero(found)] == [17, 18, 19, 38, 39, 40]


def test_a_text_without_an_answer_is_a_defect():
    with pytest.raises(PipelineError, match="no answer"):
        answers(np.array([CONVERSATION[:14]]), CHAT)


@pytest.fixture
def text() -> np.ndarray:
    """Windows that begin and end anywhere in conversations."""
    return np.array(CONVERSATION * 4)[:80].reshape(5, 16)


def test_perplexity_is_that_of_the_answers_whatever_the_rest(tmp_path: Path, text: np.ndarray):
    for other in (0.9, 0.01):
        logits = read_logits(write_logits(tmp_path / "a.logits", text, expecting(text, 0.25, other)))
        assert perplexity(logits, answers(text, CHAT)) == pytest.approx(4, rel=1e-3)
    assert count(logits, answers(text, CHAT)) == answers(text, CHAT)[:, 9:].sum() == 3


def test_divergence_is_what_the_definition_gives(tmp_path: Path, text: np.ndarray):
    chosen = answers(text, CHAT)
    f16 = read_logits(write_logits(tmp_path / "f16.logits", text, expecting(text, 0.5, 0.2)))
    quant = read_logits(write_logits(tmp_path / "q.logits", text, expecting(text, 0.4, 0.9)))
    expected = 0.5 * math.log(0.5 / 0.4) + 0.5 * math.log(0.5 / 0.6)
    assert kl_divergence(f16, quant, chosen) == pytest.approx(expected, abs=1e-3)
    assert kl_divergence(f16, f16, chosen) == 0


def test_logits_of_another_text_are_not_compared(tmp_path: Path, text: np.ndarray):
    chosen = answers(text, CHAT)
    paths = [tmp_path / "a.logits", tmp_path / "b.logits"]
    one, two = (
        read_logits(write_logits(path, tokens, expecting(text, 0.5, 0.5)))
        for path, tokens in zip(paths, (text, text[::-1]), strict=True)
    )
    with pytest.raises(PipelineError, match="not about the tokens"):
        kl_divergence(one, two, chosen)


def test_a_figure_that_is_no_number_is_written_as_null(tmp_path: Path):
    found = figures(math.nan, {"Q4_K_M": (math.inf, math.nan)}, 99)
    write_json(tmp_path / "fidelity.json", found)
    assert found["f16"]["perplexity"] is None
    assert [found["Q4_K_M"][name] for name in ("perplexity", "perplexity_ratio", "kl_divergence")] == [None] * 3


def test_the_ratio_is_the_quants_perplexity_to_the_f16s():
    found = figures(2.0, {"Q4_K_M": (2.1, 0.03)}, 510)
    assert found["Q4_K_M"]["perplexity_ratio"] == pytest.approx(1.05)
    assert found["f16"]["perplexity_tokens"] == 510


@pytest.mark.parametrize("missing", [1, 1000])
def test_logits_that_a_full_disk_cut_short_are_an_error(tmp_path: Path, text: np.ndarray, missing: int):
    path = write_logits(tmp_path / "f16.logits", text, expecting(text, 0.5, 0.5))
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(PipelineError, match="is the disk full"):
        read_logits(path)


def test_too_little_space_is_said_before_the_work_begins(model: Path, tmp_path: Path):
    params = FidelityParams(chunks=10**12, context=512)
    with pytest.raises(PipelineError, match="GB are needed for a while"):
        measure(tmp_path / "unused", model, {}, "", params, tmp_path)
    assert not (tmp_path / "f16.gguf").exists()


def program(folder: Path, says: str = "") -> Path:
    script = folder / "llama_perplexity.py"
    script.write_text(STAND_IN.format(source=str(folder / "given"), says=says))
    return write_program(folder / "llama-perplexity", script)


def test_the_f16_and_each_quant_are_measured_over_the_same_answers(
    model: Path, tmp_path: Path, text: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").mkdir()
    for name, probability in (("f16", 0.5), ("Q4_K_M", 0.4), ("Q8_0", 0.5)):
        write_logits(tmp_path / f"given/{name}.logits", text, expecting(text, probability, 0.1))
    params = FidelityParams(chunks=5, context=16)
    with scratch_folder() as folder:
        found = measure(program(tmp_path), model, dict.fromkeys(("Q4_K_M", "Q8_0"), model), "text", params, folder)
        assert {path.name for path in folder.iterdir()} == {"test.txt", "f16.logits"}
    assert list(found) == ["f16", "Q4_K_M", "Q8_0"]
    assert found["f16"]["perplexity"] == pytest.approx(2, rel=1e-3)
    assert found["Q4_K_M"]["perplexity_ratio"] == pytest.approx(1.25, rel=1e-3)
    assert found["Q8_0"]["kl_divergence"] == 0


@pytest.mark.parametrize(
    "output", ["", "perplexity: you need at least 1024 tokens to evaluate perplexity with a context of 512"]
)
def test_a_tool_that_saves_nothing_is_an_error_that_quotes_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
):
    monkeypatch.chdir(tmp_path)
    quoted = "1024 tokens" if output else "printed nothing"
    params = FidelityParams(chunks=5, context=16)
    with scratch_folder() as folder, pytest.raises(PipelineError, match=f"no perplexity: .*{quoted}"):
        measure(program(tmp_path, output), model, {}, "text", params, folder)


def test_the_scratch_folder_starts_empty_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    left_by_a_killed_run = tmp_path / ".cache/fidelity/f16.logits"
    left_by_a_killed_run.parent.mkdir(parents=True)
    left_by_a_killed_run.write_bytes(b"half")
    with scratch_folder() as folder:
        assert list(folder.iterdir()) == []
        (folder / "f16.logits").write_bytes(b"whole")
    assert not folder.exists()
