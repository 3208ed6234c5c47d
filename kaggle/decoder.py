"""A whole model for training: embedding, decoder layers, loss on the answer tokens; forward and backward.

In: a Llama or Qwen3 model of `transformers` and a `packing.Step`. Out: the loss, and gradients in the adapter's
masters. See `lora_layers.py` for why this is not autograd.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lora_layers import DecoderLayer, RmsNorm, StepShape
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
        return self._answer_loss(x, step, None)[0]

    @torch.no_grad()
    def loss_and_gradients(self, step: Step, weight: float) -> Tensor:
        """The same sum; adds `weight` times its gradient to the adapters' masters."""
        shape = self._shape(step)
        x = F.embedding(step.ids, self.embedding).float()
        kept = []
        for layer in self.layers:
            x, saved = layer.forward(x, shape)
            kept.append(saved if layer.down.adapters else None)
        loss, dx = self._answer_loss(x, step, weight)
        for layer in reversed(self.layers):
            saved = kept.pop()
            if saved is None:
                break
            dx = layer.backward(dx, saved, shape)
        return loss

    def _answer_loss(self, x: Tensor, step: Step, weight: float | None) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy of the answer rows alone: x [T, H] -> the sum, and `weight` times its gradient [T, H].

        Only a fifth to a third of the tokens predict an answer token; the head is the largest product of all.
        """
        picked = x[step.predicting]
        h, r = self.norm.forward(picked)
        logits = self.logits(h.to(self.dtype))
        loss = torch.zeros((), device=x.device)
        for some, targets in zip(logits.split(_SOFTMAX_ROWS), step.targets.split(_SOFTMAX_ROWS), strict=True):
            p = torch.softmax(some.float(), -1)
            chosen = p.gather(1, targets[:, None])
            loss -= chosen.clamp_min(torch.finfo(p.dtype).tiny).log().sum()
            if weight is not None:  # the logits are read: their gradient takes their place
                some.copy_(p.scatter_(1, targets[:, None], chosen - 1).mul_(weight))
        if weight is None:
            return loss, None
        dh = self.times_head(logits)
        return loss, torch.zeros_like(x).index_copy_(0, step.predicting, self.norm.backward(dh, picked, r))


def release_frozen(layer: nn.Module) -> None:
    """Free the matrices that `DecoderLayer` has copied: two copies of a large model do not fit a small GPU."""
    for parameter in layer.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.new_empty(0)
