"""Converting: the merged model says what the adapter said, and the GGUF is that model, well described."""

import math
import re
from pathlib import Path

import pytest
import torch
from tiny_adapter import TINY, make_adapter

from stages import convert
from stages.common import config
from stages.common.errors import PipelineError
from stages.common.llama_cpp import source
from stages.converting import checks, merging


def test_the_merged_model_gives_the_adapters_logits_and_fp16_weights(tiny_base, tmp_path):
    make_adapter(tiny_base, tmp_path / "adapter")
    prompts = [[5, 6, 7], [8, 9]]
    tuned = merging.load_tuned(tiny_base, tmp_path / "adapter")
    expected = merging._logits(tuned, prompts)
    plain = merging._logits(tuned.get_base_model(), prompts)

    merged = merging.merge(tuned, prompts)

    found = merging._logits(merged, prompts)
    assert all(torch.allclose(a, b, atol=0.05) for a, b in zip(expected, found, strict=True))
    assert all(torch.equal(weights, weights.half().float()) for weights in merged.parameters())
    assert plain[0].shape == found[0].shape


@pytest.mark.parametrize("wrong", [1.0, math.nan, math.inf])
def test_logits_that_differ_are_refused(wrong):
    expected = [torch.zeros(3, 8), torch.zeros(2, 8)]
    found = [torch.zeros(3, 8), torch.zeros(2, 8)]
    found[1][1, 4] = wrong

    with pytest.raises(PipelineError, match="merged in fp32 is not the one that was trained"):
        merging.require_close(expected, found, 0.01, "merged in fp32")


def test_an_adapter_with_a_nan_is_refused(tiny_base, tmp_path):
    make_adapter(tiny_base, tmp_path / "adapter", scale=math.nan)
    tuned = merging.load_tuned(tiny_base, tmp_path / "adapter")

    with pytest.raises(PipelineError, match="train the adapter again"):
        merging.merge(tuned, [[5, 6, 7]])


def test_an_adapter_of_another_shape_is_refused(tiny_base, tmp_path):
    from safetensors.torch import load_file, save_file

    make_adapter(tiny_base, tmp_path / "adapter")
    weights = tmp_path / "adapter/adapter_model.safetensors"
    halved = {name: tensor[: len(tensor) // 2].contiguous() for name, tensor in load_file(weights).items()}
    save_file(halved, weights, metadata={"format": "pt"})

    with pytest.raises(PipelineError, match=r"the adapter does not fit .*train it again"):
        merging.load_tuned(tiny_base, tmp_path / "adapter")


def test_a_missing_adapter_is_named(tiny_base, tmp_path):
    with pytest.raises(PipelineError, match=r"adapter/adapter_config\.json: not there; run `dvc repro`"):
        merging.load_tuned(tiny_base, tmp_path / "adapter")


@pytest.mark.parametrize("size", ["tiny", "135m", "0.6b", "1.7b", "4b"])
def test_every_size_has_a_name_that_splits_into_what_the_gguf_convention_asks_for(worktree, size):
    Path("params.yaml").write_text(
        re.sub(r"model_size: \S+", f"model_size: {size}", Path("params.yaml").read_text(encoding="utf-8"))
    )
    card = config.model_card()

    front = convert.card_front_matter(card)

    assert f"{front['basename']}-{front['finetune']}-{front['size_label']}" == card.name


@pytest.mark.parametrize(
    "value", ["/home/me/train.txt", "C:\\work\\a.txt", "~/models/base", "made of /srv/data/x"]
)
def test_a_local_path_in_the_metadata_is_found(value):
    assert checks.local_paths({"general.name": "fine", "quantize.imatrix.dataset": value}) == [
        "quantize.imatrix.dataset"
    ]


def test_urls_repositories_and_vocabularies_are_no_local_paths():
    pairs = {
        "general.base_model.0.repo_url": "https://huggingface.co/Qwen/Qwen3-0.6B",
        "general.tags": ["text-generation", "a/b"],
        "tokenizer.ggml.tokens": ["/usr", "C:\\"],
    }

    assert checks.local_paths(pairs) == []


def test_there_are_enough_check_lines_for_every_comparison(root, monkeypatch):
    monkeypatch.chdir(root)
    lines = convert.check_lines()

    assert len(lines) >= 100
    assert len(convert.check_prompts(lines)) == 16
    for kind in (r"\d{5}", r"[^\W\d_a-zA-Z]", r"[^\w\s]{5}", r"\t", r"\\", "\N{ROCKET}"):
        assert any(re.search(kind, line) for line in lines), kind


def test_perplexity_is_that_of_the_second_halves():
    class Uniform:
        """A model to which each of 10 tokens is as likely as any other."""

        def __call__(self, input_ids, use_cache):
            return type("Output", (), {"logits": torch.zeros(*input_ids.shape, 10)})

    assert checks.perplexity(Uniform(), [3] * 600) == pytest.approx(10)


@pytest.mark.slow
def test_the_stage_writes_a_gguf_that_describes_itself(trained):
    convert.main()

    [gguf] = TINY.f16.iterdir()
    pairs = checks.metadata(gguf)
    assert gguf.name == "tiny-correct-1M-f16.gguf"
    assert pairs["general.name"] == "Tiny Correct 1M"
    assert pairs["general.license"] == "mit"
    assert pairs["general.base_model.0.name"] == "Random Qwen3 1M"
    assert pairs["general.sampling.temp"] == 0
    assert pairs["tokenizer.chat_template"] == Path("data/chat_template.jinja").read_text(encoding="utf-8")
    assert checks.local_paths(pairs) == []


@pytest.mark.slow
def test_a_wrong_pre_tokenizer_is_found_by_its_tokens_and_nothing_is_left(trained):
    path = Path("configs/tiny.yaml")
    path.write_text(path.read_text().replace("pre_tokenizer: qwen2", "pre_tokenizer: smollm"))

    with pytest.raises(PipelineError, match=r"splits text otherwise .*mend card\.pre_tokenizer"):
        convert.main()

    assert not TINY.f16.exists()
    assert list(TINY.base.parent.glob(".f16*")) == []


@pytest.mark.slow
def test_a_gguf_that_computes_something_else_is_found(trained):
    convert.main()
    [gguf] = TINY.f16.iterdir()
    tuned = merging.load_tuned(TINY.base, TINY.adapter)
    with torch.no_grad():
        for weights in tuned.parameters():
            weights.mul_(1.5)
    text = "\n".join(convert.check_lines())
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(TINY.base)

    with pytest.raises(PipelineError, match="does not compute what the model does"):
        checks.require_same_perplexity(
            convert.tool("llama-perplexity"), gguf, text, tuned, tokenizer(text)["input_ids"]
        )


@pytest.mark.slow
def test_a_truncated_gguf_is_one_line(trained):
    assert source().is_dir()
    convert.main()
    [gguf] = TINY.f16.iterdir()
    gguf.write_bytes(gguf.read_bytes()[:5000])

    with pytest.raises(PipelineError, match="not a whole GGUF file"):
        checks.metadata(gguf)
