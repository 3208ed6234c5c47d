"""Packing: what a step holds, that nothing is lost or seen twice, and that rows are what a client would send."""

import json
from pathlib import Path

import pytest
from packing import DataError, Example, build, pack, plan, read_rows, tokenize
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

STOP = "<|im_end|>"
TEMPLATE = Path("data/chat_template.jinja").read_text(encoding="utf-8")


def row(system: str, question: str, answer: str) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, which shows exactly what text the trainer sees."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[])
    raw = Tokenizer(model)
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=STOP)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", STOP]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def text(tokenizer: PreTrainedTokenizerFast, ids: tuple[int, ...]) -> str:
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    return "".join(tokens).replace("Ġ", " ").replace("Ċ", "\n")


def example(prefix: int, question: int, answer: int) -> Example:
    return Example((prefix,) * 5, (100,) * question, tuple(range(answer)))


def test_an_example_is_the_prompt_of_a_client_and_the_answer_with_its_stop_token(tokenizer):
    [made] = tokenize(tokenizer, [row("Correct for bash.", "gti status", "git status")], STOP)

    assert text(tokenizer, made.prefix) == "<|im_start|>system\nCorrect for bash.<|im_end|>\n<|im_start|>user\n"
    assert text(tokenizer, made.question) == "gti status<|im_end|>\n<|im_start|>assistant\n"
    assert text(tokenizer, made.answer) == "git status<|im_end|>"


def test_a_template_that_rewrites_messages_is_refused(tokenizer):
    tokenizer.chat_template = TEMPLATE.replace("{{ message['content'] }}", "{{ message['content'] | upper }}")

    with pytest.raises(DataError, match="template"):
        tokenize(tokenizer, [row("s", "q", "a")], STOP)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not a row"),
        ('{"messages": [{"role": "user"}]}', "not a row"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "roles"),
        ("\udcff", "not a row"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, complaint):
    good = json.dumps({"messages": row("s", "q", "a")})
    path = tmp_path / "train.jsonl"
    path.write_bytes(f"{good}\n{line}\n".encode(errors="surrogateescape"))

    with pytest.raises(DataError, match=rf"train\.jsonl:2: .*{complaint}"):
        read_rows(path)


def test_rows_hold_one_prefix_and_no_more_tokens_than_asked_for():
    examples = [example(i % 3, 3 + i % 7, 2 + i % 5) for i in range(200)]

    rows = pack(examples, range(200), row_tokens=60)

    for packed in rows:
        assert len({examples[i].prefix for i in packed.examples}) == 1
        assert 5 + packed.slot * len(packed.examples) <= 60
        assert packed.slot == max(len(examples[i]) for i in packed.examples)
    assert sorted(i for packed in rows for i in packed.examples) == list(range(200))


def test_an_example_longer_than_a_row_gets_a_row_of_its_own():
    examples = [example(0, 50, 50), example(0, 3, 2)]

    assert [len(packed.examples) for packed in pack(examples, [0, 1], row_tokens=30)] == [1, 1]


def test_every_example_is_seen_once_an_epoch_and_the_order_is_the_seeds():
    examples = [example(i % 2, 3 + i % 7, 2) for i in range(50)]

    steps = plan(examples, row_tokens=60, rows_per_step=2, total=125, seed=7)
    seen = [i for rows in steps for packed in rows for i in packed.examples]

    assert len(seen) == 125
    assert sorted(seen[:50]) == sorted(seen[50:100]) == list(range(50))
    assert seen[:50] != seen[50:100]
    assert steps == plan(examples, row_tokens=60, rows_per_step=2, total=125, seed=7)
    assert steps != plan(examples, row_tokens=60, rows_per_step=2, total=125, seed=8)


def test_a_step_predicts_exactly_the_answers_and_positions_go_on_after_the_prefix():
    examples = [Example((1, 2), (3, 4), (5, 6)), Example((1, 2), (7,), (8,))]
    [row_] = pack(examples, [0, 1], row_tokens=20)

    step = build(examples, [row_])

    assert step.ids.tolist() == [1, 2, 3, 4, 5, 7, 8, 8]
    assert step.positions.tolist() == [0, 1, 2, 3, 4, 2, 3, 4]
    assert step.predicting.tolist() == [3, 4, 5]
    assert step.targets.tolist() == [5, 6, 8]
