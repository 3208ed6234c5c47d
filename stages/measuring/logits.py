"""What llama-perplexity saves of a model over a text: its log-probabilities, and which of them are of answers.

The file (`--kl-divergence-base`; tools/perplexity/perplexity.cpp): a head, the tokens of all windows, and for each
scored token a scale, a minimum (float32) and 16 bits a logit. Of a window of C tokens the places C/2 to C-2 are
scored, each by the token that follows it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.common.errors import PipelineError

_HEAD_BYTES = 20
_TURNS = 3
"""System, user, assistant."""


class ChatTokens(NamedTuple):
    """The ids of what opens a turn, ends it, and ends the line with its role."""

    start: int
    stop: int
    newline: int


@dataclass(frozen=True)
class Logits:
    """A whole file of logits; of its W windows of `context` tokens S places each are scored."""

    path: Path
    context: int
    vocabulary: int
    tokens: np.ndarray  # [W, context] int32

    @property
    def targets(self) -> np.ndarray:
        """[W, S] the token that each scored place must predict."""
        return self.tokens[:, self.context // 2 + 1 :]

    @cached_property
    def _saved(self) -> np.ndarray:
        """[W, S, 4 + vocabulary (made even)] the numbers after the head and the tokens, as uint16."""
        shape = (len(self.tokens), scored(self.context), _row_bytes(self.vocabulary) // 2)
        return np.memmap(self.path, np.uint16, "r", _HEAD_BYTES + self.tokens.nbytes, shape)

    def log_probabilities(self, window: int, places: np.ndarray) -> np.ndarray:
        """[places, vocabulary] float32, of some scored places (a mask of S) of one window."""
        rows = self._saved[window][places]
        scale, least = np.ascontiguousarray(rows[:, :4]).view(np.float32).T
        return rows[:, 4 : 4 + self.vocabulary] * scale[:, None] + least[:, None]


def scored(context: int) -> int:
    """How many places of a window count."""
    return context - 1 - context // 2


def window_bytes(context: int, vocabulary: int) -> int:
    """What one window takes in a file of logits."""
    return scored(context) * _row_bytes(vocabulary)


def _row_bytes(vocabulary: int) -> int:
    return 2 * (2 * ((vocabulary + 1) // 2) + 4)


def read_logits(path: Path) -> Logits:
    """Open a file of logits and check that it is whole.

    Raises:
        PipelineError: it is not; llama-perplexity does not notice when the disk is full.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES or not head.startswith(b"_logits_"):
            raise PipelineError(f"{path}: no logits in it; is the disk full? free some space and run again")
        context, vocabulary, windows = struct.unpack("<3i", head[8:])
        tokens = np.frombuffer(file.read(4 * context * windows), np.int32)
    wanted = _HEAD_BYTES + 4 * context * windows + windows * window_bytes(context, vocabulary)
    if path.stat().st_size != wanted:
        raise PipelineError(
            f"{path}: {path.stat().st_size} of {wanted} bytes were written; is the disk full? free "
            "some space or lower fidelity.chunks in params.yaml, and run again"
        )
    return Logits(path, context, vocabulary, tokens.reshape(windows, context))


def answers(tokens: np.ndarray, chat: ChatTokens) -> np.ndarray:
    """Which tokens of a text of whole conversations are an answer's, its stop included: a mask of their shape.

    Raises:
        PipelineError: there is none.
    """
    flat = tokens.reshape(-1)
    turn = np.cumsum(flat == chat.start) - 1
    is_newline = flat == chat.newline
    in_turn = np.zeros(len(flat), bool)  # after the line with the role, up to the stop
    inside = False
    for place, token in enumerate(flat):
        in_turn[place] = inside
        if token == chat.start or token == chat.stop:
            inside = False
        elif is_newline[place] and turn[place] >= 0 and not inside:
            inside = flat[place - 1] != chat.stop  # the newline after a stop belongs to no turn
    found = in_turn & (turn % _TURNS == _TURNS - 1)
    if not found.any():
        raise PipelineError("llama-perplexity read no answer in the test text; report this as a defect")
    return found.reshape(tokens.shape)


def perplexity(logits: Logits, chosen: np.ndarray) -> float:
    """Over the tokens that `chosen`, a mask of theirs, picks among the scored ones."""
    surprises = []
    for window, places in enumerate(_of_scored(logits, chosen)):
        known = logits.log_probabilities(window, places)
        surprises.append(-known[np.arange(len(known)), logits.targets[window][places]])
    return float(np.exp(np.concatenate(surprises).mean(dtype=np.float64)))


def kl_divergence(reference: Logits, model: Logits, chosen: np.ndarray) -> float:
    """How far the model strays from the reference over the chosen tokens, the mean in nats a token.

    Raises:
        PipelineError: the two are not about the same tokens.
    """
    if not np.array_equal(reference.tokens, model.tokens):
        raise PipelineError(f"{model.path}: not about the tokens of {reference.path}; report this as a defect")
    divergences = []
    for window, places in enumerate(_of_scored(reference, chosen)):
        expected, found = (each.log_probabilities(window, places) for each in (reference, model))
        divergences.append((np.exp(expected) * (expected - found)).sum(axis=1, dtype=np.float64))
    return float(np.concatenate(divergences).mean())


def count(logits: Logits, chosen: np.ndarray) -> int:
    """How many of the chosen tokens are scored."""
    return int(_of_scored(logits, chosen).sum())


def _of_scored(logits: Logits, chosen: np.ndarray) -> np.ndarray:
    return chosen[:, logits.context // 2 + 1 :]
