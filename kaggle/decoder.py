"""A whole model for training: embedding, decoder layers, loss on the answer tokens; forward and backward.

In: a Llama or Qwen3 model of `transformers` and a `packing.Step`. Out: the loss, and the adapter's gradients. See
`lora_layers.py` for why this is not autograd.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from lora_layers import DecoderLayer, RmsNorm, Selection, StepShape
from packing import Step
from placement import products
from torch import Tensor, nn

_SOFTMAX_ROWS = 32  # a row of fp32 logits has 200 kB and more: so many stay in the cache


class Decoder:
    """The frozen model in the compute format `dtype`, with room for adapters in its layers."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        config, body = model.config, model.model
        if config.model_type not in ("llama", "qwen3") or config.hidden_act != "silu":
            raise ValueError(
                f"the trainer knows llama and qwen3, not {config.model_type} with {config.hidden_act}"
            )
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.dtype, self.rotary = dtype, body.rotary_emb
        self.layers = []
        for layer in body.layers:
            self.layers.append(DecoderLayer(layer, head_dim, dtype))
            release_frozen(layer)
        self.norm = RmsNorm(body.norm)
        self.embedding = body.embed_tokens.weight.detach()
        self.logits, self.times_head = products(model.lm_head.weight.detach().to(dtype))

    def with_layers(self, layers: list[DecoderLayer]) -> Decoder:
        """The same model with other `layers`."""
        other = copy.copy(self)
        other.layers = layers
        return other

    def _shape(self, step: Step) -> StepShape:
        probe = torch.empty(0, dtype=torch.float32, device=step.ids.device)
        cos, sin = self.rotary(probe, step.positions[None])
        half = cos.shape[-1] // 2
        return StepShape(step.rows, cos[0, :, None, :half].contiguous(), sin[0, :, None, :half].contiguous())

    @torch.no_grad()
    def loss(self, step: Step) -> Tensor:
        """Sum over the answer tokens of -log p, fp32."""
        shape = self._shape(step)
        x = F.embedding(step.ids, self.embedding).float()
        for layer in self.layers:
            x, _ = layer.forward(x, shape)
        return self._answers(x, step)[0].sum()

    @torch.no_grad()
    def loss_and_gradients(self, step: Step, weight: float, share: float = 1.0) -> Tensor:
        """The same sum; adds `weight` times its gradient to the adapters' gradients.

        Of the step's examples only the `share` with the greatest losses is taken through the backward pass: the
        others are known already and their gradients are next to nothing (selective backpropagation, Jiang et al.
        2019). The forward pass of all is half of a step's time.
        """
        shape = self._shape(step)
        x = F.embedding(step.ids, self.embedding).float()
        kept = []
        for layer in self.layers:
            x, saved = layer.forward(x, shape)
            kept.append(saved if layer.down.adapters else None)
        losses, r, dlogits = self._answers(x, step)
        chosen = hardest(losses, step, share)
        picked = chosen[step.answered]
        places = step.predicting[picked]
        dh = self.times_head(dlogits[picked].mul_(weight))
        dx = torch.zeros_like(x).index_copy_(0, places, self.norm.backward(dh, x[places], r[picked]))
        selection = None if chosen.all() else Selection.of(shape, chosen)
        if selection:
            dx, shape = dx[selection.tokens], selection.step
        for layer in reversed(self.layers):
            saved = kept.pop()
            if saved is None:
                break
            dx = layer.backward(dx, selection.narrow(saved) if selection else saved, shape)
        return losses.sum()

    def _answers(self, x: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """x [T, H] -> each answer token's loss [A], what the norm's backward needs, and d loss / d logits [A, V].

        Only a fifth to a third of the tokens predict an answer token; the head is the largest product of all.
        """
        h, r = self.norm.forward(x[step.predicting])
        logits = self.logits(h.to(self.dtype))
        losses = []
        for some, targets in zip(
            logits.split(_SOFTMAX_ROWS), step.targets[:, None].split(_SOFTMAX_ROWS), strict=True
        ):
            p = torch.softmax(some.float(), -1)
            chosen = p.gather(1, targets)
            losses.append(-chosen.clamp_min(torch.finfo(p.dtype).tiny).log().flatten())
            some.copy_(p.scatter_(1, targets, chosen - 1))  # in fp32: 1 - p is lost to rounding where p is near 1
        return torch.cat(losses), r, logits


def hardest(losses: Tensor, step: Step, share: float) -> Tensor:
    """[examples] true for those whose answers have the greatest losses: `share` of them, one at least."""
    of_example = losses.new_zeros(step.examples).index_add_(0, step.answered, losses)
    chosen = torch.zeros(step.examples, dtype=torch.bool, device=losses.device)
    count = max(1, math.ceil(share * step.examples))
    return chosen.index_fill_(0, of_example.topk(count).indices, True)


def release_frozen(layer: nn.Module) -> None:
    """Free the matrices that `DecoderLayer` has copied: two copies of a large model do not fit a small GPU."""
    for parameter in layer.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.new_empty(0)
