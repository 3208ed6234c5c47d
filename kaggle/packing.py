"""Chat rows to training steps: what all prompts of a row start with once, then as many examples as fit.

In: a tokenizer with a chat template, rows `{"messages": [system, user, assistant]}`. Out: `Step`s. Every example
attends to the prefix and to itself and its positions go on after the prefix, so it sees exactly what it would see
alone (`tests/test_trainer.py` proves it); half of the tokens are saved where prompts are short. The stop token of
an answer is predicted but never read, so it takes no place in a row.

A row is a prefix of P tokens and n slots of L tokens. Slots have one length, so that attention is a plain batched
product and needs no dense mask; examples of similar length share a row to keep the padding small (about 4 %).
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Examples of one system prompt that are sorted by length together: more pad less, fewer mix better.
POOL = 256


class DataError(Exception):
    """One line: what is wrong with the rows, where, what to do."""


@dataclass(frozen=True)
class Example:
    """Token ids: the prefix (system turn and the head of the user's), the rest up to the answer, the answer with
    its stop."""

    prefix: tuple[int, ...]
    question: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        """Tokens that are read: all but the prefix and the stop."""
        return len(self.question) + len(self.answer) - 1


@dataclass(frozen=True)
class Row:
    """Examples of one prefix, and the length of the slots they are padded to."""

    examples: tuple[int, ...]
    slot: int


@dataclass(frozen=True)
class RowShape:
    """Where a row lies in a step: tokens `start` to `start + prefix + slots * slot`."""

    start: int
    prefix: int
    slots: int
    slot: int


@dataclass(frozen=True)
class Step:
    """One optimizer step: T tokens of several rows, and which of them predict an answer token."""

    ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64
    rows: tuple[RowShape, ...]
    predicting: Tensor  # [A] int64: places whose next token belongs to an answer
    targets: Tensor  # [A] int64: those next tokens
    answered: Tensor  # [A] int64: whose answer that is; examples are counted over the rows, from 0
    examples: int

    def to(self, device: torch.device) -> Step:
        """The same step with its tensors on `device`."""
        tensors = (self.ids, self.positions, self.predicting, self.targets, self.answered)
        ids, positions, predicting, targets, answered = (t.to(device) for t in tensors)
        return Step(ids, positions, self.rows, predicting, targets, answered, self.examples)


def read_rows(path: Path) -> list[list[dict[str, str]]]:
    """The messages of every row of a JSONL file; the first bad line is a `DataError`."""
    rows = []
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: not there; make the dataset first") from None
    for number, line in enumerate(lines, start=1):
        try:
            messages = json.loads(line.decode("utf-8"))["messages"]
            roles = [message["role"] for message in messages]
            if not all(isinstance(message["content"], str) for message in messages):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path}:{number}: not a row of chat messages; mend or delete the line") from None
        if roles != ["system", "user", "assistant"]:
            raise DataError(f"{path}:{number}: roles are {roles}, not system, user, assistant")
        rows.append(messages)
    if not rows:
        raise DataError(f"{path}: no rows; make the dataset first")
    return rows


def tokenize(tokenizer: Any, rows: Sequence[list[dict[str, str]]], stop: str) -> list[Example]:
    """Tokenize as the clients do: the prompt on its own, so that no token spans its border to the answer.

    Raises:
        DataError: the tokenizer's chat template does not put the messages one after the other, verbatim.
    """
    prefix, head, tail = _template_pieces(tokenizer, stop)

    def encode(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    systems = sorted({row[0]["content"] for row in rows})
    prefixes = dict(zip(systems, encode([prefix(system) for system in systems]), strict=True))
    questions = encode([head + row[1]["content"] + tail for row in rows])
    answers = encode([row[2]["content"] + stop for row in rows])
    shared = common_start(*encode([head]), *questions)  # a token may span the head's end
    return [
        Example((*prefixes[row[0]["content"]], *question[:shared]), tuple(question[shared:]), tuple(answer))
        for row, question, answer in zip(rows, questions, answers, strict=True)
    ]


def common_start(*sequences: Sequence[int]) -> int:
    """How many items all the sequences start with alike: what the least and the greatest share, all share."""
    pairs = zip(min(sequences), max(sequences), strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _template_pieces(tokenizer: Any, stop: str) -> tuple[Callable[[str], str], str, str]:
    """What wraps a system prompt the way the chat template does, and what it puts before and after a question."""
    marks = ["\x01system\x01", "\x01user\x01", "\x01assistant\x01"]
    turns = [
        {"role": role, "content": mark} for role, mark in zip(("system", "user", "assistant"), marks, strict=True)
    ]
    system = tokenizer.apply_chat_template(turns[:1], tokenize=False)
    prompt = tokenizer.apply_chat_template(turns[:2], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    question = prompt[len(system) :]
    plain = prompt.startswith(system) and whole.startswith(prompt + marks[2] + stop)
    if not plain or system.count(marks[0]) != 1 or question.count(marks[1]) != 1:
        raise DataError("the base's chat template changes or reorders messages; use the project's own template")
    head, tail = question.split(marks[1])
    return (lambda text: system.replace(marks[0], text)), head, tail


def pack(examples: Sequence[Example], order: Sequence[int], row_tokens: int) -> list[Row]:
    """Fill rows of at most `row_tokens` tokens with the examples in `order`; one too long gets its own row."""
    by_prefix: dict[tuple[int, ...], list[int]] = {}
    for index in order:
        by_prefix.setdefault(examples[index].prefix, []).append(index)
    rows = []
    for prefix, indices in by_prefix.items():
        for begin in range(0, len(indices), POOL):
            pool = sorted(indices[begin : begin + POOL], key=lambda index: -len(examples[index]))
            while pool:
                slot = len(examples[pool[0]])
                count = max(1, (row_tokens - len(prefix)) // slot)
                rows.append(Row(tuple(pool[:count]), slot))
                pool = pool[count:]
    return rows


def plan(
    examples: Sequence[Example], row_tokens: int, rows_per_step: int, total: int, seed: int
) -> list[tuple[Row, ...]]:
    """The rows of every step until `total` examples have been seen, each epoch in an order of its own."""
    rng = random.Random(seed)
    steps: list[tuple[Row, ...]] = []
    while total > 0:
        order = rng.sample(range(len(examples)), min(total, len(examples)))
        total -= len(order)
        rows = pack(examples, order, row_tokens)
        rng.shuffle(rows)
        steps += [tuple(rows[i : i + rows_per_step]) for i in range(0, len(rows), rows_per_step)]
    return steps


def build(examples: Sequence[Example], rows: Sequence[Row]) -> Step:
    """Lay rows end to end as tensors. Padding repeats the stop token: it is never attended to nor predicted."""
    ids: list[int] = []
    positions: list[int] = []
    count = 0
    shapes, predicting, targets, answered = [], [], [], []
    for row in rows:
        prefix = examples[row.examples[0]].prefix
        shapes.append(RowShape(len(ids), len(prefix), len(row.examples), row.slot))
        ids += prefix
        positions += range(len(prefix))
        for index in row.examples:
            example = examples[index]
            first = len(ids) + len(example.question) - 1
            predicting += range(first, first + len(example.answer))
            targets += example.answer
            answered += [count] * len(example.answer)
            count += 1
            padding = row.slot - len(example)
            ids += (*example.question, *example.answer[:-1], *(example.answer[-1:] * padding))
            positions += range(len(prefix), len(prefix) + row.slot)
    tensors = (torch.tensor(values) for values in (ids, positions, predicting, targets, answered))
    ids_, positions_, predicting_, targets_, answered_ = tensors
    return Step(ids_, positions_, tuple(shapes), predicting_, targets_, answered_, count)


def batches(examples: Sequence[Example], row_tokens: int, rows_per_step: int) -> Iterator[Step]:
    """All examples once, in order of their rows: for validation."""
    rows = pack(examples, range(len(examples)), row_tokens)
    for begin in range(0, len(rows), rows_per_step):
        yield build(examples, rows[begin : begin + rows_per_step])
