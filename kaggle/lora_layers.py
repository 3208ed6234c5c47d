"""The hot path: a Llama or Qwen3 decoder layer with LoRA whose backward pass is written by hand.

In: a decoder layer of `transformers` (for its frozen weights) and a step's activations. Out: the next activations,
or the gradient of the previous ones; the adapters' gradients are added to vectors that `adapter.Adapter` has.

Why not autograd over `peft` modules: on two CPU cores a 512-token step through SmolLM2-135M takes 1.3 s that way,
of which matrix products are 0.25 s. Here the frozen weights lie in the compute format, projections that read the
same input are one product, nothing is computed that the adapters' gradients do not need, attention touches only
what a token may see, and the residual stream stays in fp32. `tests/test_trainer.py` holds loss and gradients to
those of `transformers` + `peft` on separate sequences.

Shapes: T tokens of a step, H hidden size, r rank, d head size, O all outputs of a group.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from packing import RowShape
from placement import products
from torch import Tensor, nn


class LoraGroup:
    """Projections that read the same input, as one product: y = x W^T + (x A^T)(s B^T).

    W [O, in] is the frozen matrices one under the other, `down` [g r, in] their A likewise; `up` [g r, O]
    is block diagonal: each projection's s B^T in its own columns, zero elsewhere.
    """

    def __init__(self, linears: list[nn.Module], dtype: torch.dtype) -> None:
        self.outputs = [linear.weight.shape[0] for linear in linears]
        self.dtype = dtype
        weight = torch.cat([linear.weight.detach() for linear in linears]).to(dtype)
        self.times_weight_t, self.times_weight = products(weight)
        self.adapters: list[tuple[Tensor, Tensor]] = []
        self.gradients: list[tuple[Tensor, Tensor]] = []

    def attach(self, adapters: list[tuple[Tensor, Tensor]], scale: float) -> None:
        """Take the fp32 masters (A [r, in], B [out, r])."""
        self.adapters, self.scale = adapters, scale
        a = adapters[0][0]
        rank, inputs = a.shape
        self.down = a.new_zeros(rank * len(adapters), inputs, dtype=self.dtype)
        self.up = a.new_zeros(rank * len(adapters), sum(self.outputs), dtype=self.dtype)

    def with_gradients(self, gradients: list[tuple[Tensor, Tensor]]) -> LoraGroup:
        """The same projections, whose backward pass adds to these gradients (of A, of B)."""
        other = copy.copy(self)
        other.gradients = gradients
        return other

    def _blocks(self, pairs: list[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor, slice, slice]]:
        """(of A, of B, rows of `down`, columns of `up`) of every projection."""
        row = column = 0
        for (a, b), width in zip(pairs, self.outputs, strict=True):
            yield a, b, slice(row, row + a.shape[0]), slice(column, column + width)
            row, column = row + a.shape[0], column + width

    def refresh(self) -> None:
        """Copy the masters into the compute format; to be called after every change of theirs."""
        for a, b, rows, columns in self._blocks(self.adapters):
            self.down[rows].copy_(a)
            self.up[rows, columns].copy_(b.t() * self.scale)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x [T, in] -> y [T, O], and x A^T for the backward pass."""
        y = self.times_weight_t(x)
        if not self.adapters:
            return y, None
        u = F.linear(x, self.down)
        return y.addmm_(u, self.up), u

    def backward(self, dy: Tensor, x: Tensor, u: Tensor) -> Tensor:
        """dy [T, O] -> dx [T, in]; adds to the gradients."""
        v = F.linear(dy, self.up)
        d_down, d_up = v.t() @ x, u.t() @ dy
        for da, db, rows, columns in self._blocks(self.gradients):
            da.add_(d_down[rows])
            db.add_(d_up[rows, columns].t(), alpha=self.scale)
        return self.times_weight(dy).addmm_(v, self.down)


class RmsNorm:
    """y = w x / sqrt(mean(x^2) + eps) over the last dimension, in fp32 (Zhang and Sennrich 2019)."""

    def __init__(self, norm: nn.Module) -> None:
        self.weight, self.eps = norm.weight.detach().float(), norm.variance_epsilon

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y, and 1 / sqrt(mean(x^2) + eps) for the backward pass."""
        r = torch.rsqrt(x.square().mean(-1, keepdim=True).add_(self.eps))
        return (x * r).mul_(self.weight), r

    def backward(self, dy: Tensor, x: Tensor, r: Tensor) -> Tensor:
        dn = dy * self.weight
        n = x * r
        return dn.addcmul_(n, (dn * n).mean(-1, keepdim=True), value=-1).mul_(r)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021), halves against each other: x [T, n, d], cos and sin [T, 1, d/2].

    Its gradient is the rotation by the opposite angle, `rotate(dy, cos, -sin)`.
    """
    x1, x2 = x.float().chunk(2, -1)
    return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], -1)


@dataclass(frozen=True)
class StepShape:
    """What all layers of a step share."""

    rows: tuple[RowShape, ...]
    cos: Tensor  # [T, 1, d/2] fp32
    sin: Tensor


@dataclass(frozen=True)
class Selection:
    """Those slots of a step that the backward pass goes through, with the prefixes that they look at.

    `step` is the shape of what is left, `tokens` [T'] are its tokens' places in the whole step. `slots` has, for
    each row that keeps any, the row's number, how many slots it has and the numbers of those that are kept.
    """

    step: StepShape
    tokens: Tensor
    slots: tuple[tuple[int, int, Tensor], ...]

    @classmethod
    def of(cls, step: StepShape, chosen: Tensor) -> Selection:
        """`chosen` [slots of the step] is true where a slot is kept; one at least."""
        rows, tokens, slots = [], [], []
        start = 0
        for number, (row, mine) in enumerate(
            zip(step.rows, chosen.split([row.slots for row in step.rows]), strict=True)
        ):
            kept = mine.nonzero().flatten()
            if not len(kept):
                continue
            device = kept.device
            first = row.start + row.prefix
            within = torch.arange(row.slot, device=device)
            tokens.append(torch.arange(row.start, first, device=device))
            tokens.append((first + kept[:, None] * row.slot + within).flatten())
            slots.append((number, row.slots, kept))
            rows.append(RowShape(start, row.prefix, len(kept), row.slot))
            start += row.prefix + len(kept) * row.slot
        places = torch.cat(tokens)
        return cls(StepShape(tuple(rows), step.cos[places], step.sin[places]), places, tuple(slots))

    def narrow(self, saved: tuple) -> tuple:
        """What `DecoderLayer.forward` has saved, of these tokens alone."""
        rows, norms = saved[_ATTENTION]
        fewer = []
        for number, count, kept in self.slots:
            prefix, slots = rows[number]  # tensors of the slots are [kv_heads slots, ...]
            fewer.append((prefix, tuple(t.unflatten(0, (-1, count))[:, kept].flatten(0, 1) for t in slots)))
        norms = norms and tuple(t[self.tokens] for t in norms)
        return tuple(
            (fewer, norms) if place == _ATTENTION else t if t is None else t[self.tokens]
            for place, t in enumerate(saved)
        )


_ATTENTION = 4  # its place in what a layer saves


class DecoderLayer:
    """Pre-norm, grouped-query attention, SwiGLU; queries and keys normalised where the model does so (Qwen3)."""

    def __init__(self, layer: nn.Module, head_dim: int, dtype: torch.dtype) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.head_dim, self.dtype = head_dim, dtype
        self.heads = attention.q_proj.weight.shape[0] // head_dim
        self.kv_heads = attention.k_proj.weight.shape[0] // head_dim
        self.norm1, self.norm2 = RmsNorm(layer.input_layernorm), RmsNorm(layer.post_attention_layernorm)
        self.q_norm = RmsNorm(attention.q_norm) if hasattr(attention, "q_norm") else None
        self.k_norm = RmsNorm(attention.k_norm) if hasattr(attention, "k_norm") else None
        self.qkv = LoraGroup([attention.q_proj, attention.k_proj, attention.v_proj], dtype)
        self.out = LoraGroup([attention.o_proj], dtype)
        self.gate_up = LoraGroup([mlp.gate_proj, mlp.up_proj], dtype)
        self.down = LoraGroup([mlp.down_proj], dtype)

    @property
    def groups(self) -> tuple[LoraGroup, ...]:
        """All projections of the layer."""
        return self.qkv, self.out, self.gate_up, self.down

    def with_groups(self, groups: Sequence[LoraGroup]) -> DecoderLayer:
        """The same layer with other `groups`."""
        other = copy.copy(self)
        other.qkv, other.out, other.gate_up, other.down = groups
        return other

    def forward(self, x: Tensor, step: StepShape) -> tuple[Tensor, tuple]:
        """x [T, H] fp32 -> the layer's output, and what its backward pass needs."""
        h, r1 = self.norm1.forward(x)
        h = h.to(self.dtype)
        qkv, u1 = self.qkv.forward(h)
        o, attention = self._attend(qkv, step)
        a, u2 = self.out.forward(o)
        x2 = x + a
        h2, r2 = self.norm2.forward(x2)
        h2 = h2.to(self.dtype)
        gu, u3 = self.gate_up.forward(h2)
        gate, up = gu.chunk(2, -1)
        s = F.silu(gate)
        m = s * up
        d, u4 = self.down.forward(m)
        return x2 + d, (x, r1, h, u1, attention, o, u2, x2, r2, h2, u3, gu, s, m, u4)

    def backward(self, dy: Tensor, saved: tuple, step: StepShape) -> Tensor:
        """dy [T, H] fp32 -> dx; adds to the adapters' gradients."""
        x, r1, h, u1, attention, o, u2, x2, r2, h2, u3, gu, s, m, u4 = saved
        gate, up = gu.chunk(2, -1)
        dm = self.down.backward(dy.to(self.dtype), m, u4)
        dgu = torch.empty_like(gu)
        dgate, dup = dgu.chunk(2, -1)
        torch.mul(s, dm, out=dup)
        torch.ops.aten.silu_backward.grad_input(dm.mul_(up), gate, grad_input=dgate)
        dx2 = self.norm2.backward(self.gate_up.backward(dgu, h2, u3), x2, r2).add_(dy)
        do = self.out.backward(dx2.to(self.dtype), o, u2)
        dqkv = self._attend_backward(do, attention, step)
        return self.norm1.backward(self.qkv.backward(dqkv, h, u1), x, r1).add_(dx2)

    def _attend(self, qkv: Tensor, step: StepShape) -> tuple[Tensor, tuple]:
        """qkv [T, (heads + 2 kv_heads) d] -> [T, heads d]."""
        nq, nk, d = self.heads, self.kv_heads, self.head_dim
        q, k, v = qkv.view(-1, nq + 2 * nk, d).split([nq, nk, nk], 1)
        norms = None
        if self.q_norm:
            q0, k0 = q.float(), k.float()
            (q, rq), (k, rk) = self.q_norm.forward(q0), self.k_norm.forward(k0)
            norms = (q0, rq, k0, rk)
        # 1/sqrt(d) goes into the fp32 queries: dividing the rounded scores would round twice.
        q = rotate(q, step.cos, step.sin).mul_(d**-0.5).to(self.dtype)
        k = rotate(k, step.cos, step.sin).to(self.dtype)
        o = qkv.new_empty(qkv.shape[0], nq, d)
        rows = [attend_row(q, k, v, o, row) for row in step.rows]
        return o.view(-1, nq * d), (rows, norms)

    def _attend_backward(self, do: Tensor, saved: tuple, step: StepShape) -> Tensor:
        rows, norms = saved
        nq, nk, d = self.heads, self.kv_heads, self.head_dim
        do = do.view(-1, nq, d)
        dqkv = do.new_empty(do.shape[0], nq + 2 * nk, d)
        for row, kept in zip(step.rows, rows, strict=True):
            attend_row_backward(do, dqkv, kept, row)
        dq, dk, _ = dqkv.split([nq, nk, nk], 1)
        new_q = rotate(dq, step.cos, -step.sin).mul_(d**-0.5)
        new_k = rotate(dk, step.cos, -step.sin)
        if norms:
            q0, rq, k0, rk = norms
            new_q, new_k = self.q_norm.backward(new_q, q0, rq), self.k_norm.backward(new_k, k0, rk)
        dq.copy_(new_q)
        dk.copy_(new_k)
        return dqkv.view(-1, (nq + 2 * nk) * d)


def attend_row(q: Tensor, k: Tensor, v: Tensor, o: Tensor, row: RowShape) -> tuple:
    """Attention of one row: the prefix to itself, every slot to the prefix and to itself, all causal.

    q, o [T, heads, d]; k, v [T, kv_heads, d]. Writes the row's part of `o`. The queries of one key head lie
    together, so that keys are not repeated for grouped queries.
    """
    P, n, L = row.prefix, row.slots, row.slot
    kp, vp = (by_head(t, row.start, 1, P, t.shape[1]) for t in (k, v))
    ks, vs = (by_head(t, row.start + P, n, L, t.shape[1]) for t in (k, v))
    kept = []
    for start, slots, length, keys, values in (
        (row.start, 1, P, kp, vp),
        (row.start + P, n, L, with_prefix(kp, ks, n), with_prefix(vp, vs, n)),
    ):
        queries = by_head(q, start, slots, length, k.shape[1])
        scores = torch.bmm(queries, keys.transpose(1, 2)).float()
        scores.view(-1, length, keys.shape[1]).add_(causal(length, keys.shape[1], scores.device))
        p = torch.softmax(scores, -1).to(q.dtype)
        to_tokens(torch.bmm(p, values), o, start, slots, length, k.shape[1])
        kept.append((queries, keys, values, p))
    return tuple(kept)


def attend_row_backward(do: Tensor, dqkv: Tensor, kept: tuple, row: RowShape) -> None:
    """From do [T, heads, d] the row's part of dqkv [T, heads + 2 kv_heads, d]."""
    P, n, L = row.prefix, row.slots, row.slot
    nq = do.shape[1]
    nk = (dqkv.shape[1] - nq) // 2
    dq, dk, dv = dqkv.split([nq, nk, nk], 1)
    shared = []
    for (queries, keys, values, p), start, slots, length in zip(
        kept, (row.start, row.start + P), (1, n), (P, L), strict=True
    ):
        g = by_head(do, start, slots, length, nk)
        ds = torch._softmax_backward_data(torch.bmm(g, values.transpose(1, 2)), p, -1, p.dtype)
        to_tokens(torch.bmm(ds, keys), dq, start, slots, length, nk)
        shared.append((torch.bmm(ds.transpose(1, 2), queries), torch.bmm(p.transpose(1, 2), g)))
    for out, of_prefix, of_slots in ((dk, shared[0][0], shared[1][0]), (dv, shared[0][1], shared[1][1])):
        of_slots = of_slots.view(nk, n, P + L, -1)
        total = of_slots[:, :, :P].sum(1, dtype=torch.float32) + of_prefix
        out[row.start : row.start + P].copy_(total.transpose(0, 1))
        to_tokens(of_slots[:, :, P:], out, row.start + P, n, L, nk)


_masks: dict[tuple, Tensor] = {}


def causal(queries: int, keys: int, device: torch.device) -> Tensor:
    """[queries, keys] fp32: 0 where a query may look, -inf beyond; the last query sees all keys."""
    key = (queries, keys, device)
    if key not in _masks:
        _masks[key] = torch.full((queries, keys), float("-inf"), device=device).triu(keys - queries + 1)
    return _masks[key]


def by_head(x: Tensor, start: int, slots: int, length: int, kv_heads: int) -> Tensor:
    """Tokens of x [T, h, d] from `start` -> [kv_heads slots, (h / kv_heads) length, d]."""
    h, d = x.shape[1:]
    x = x[start : start + slots * length].view(slots, length, kv_heads, h // kv_heads, d)
    return x.permute(2, 0, 3, 1, 4).reshape(kv_heads * slots, -1, d)


def to_tokens(y: Tensor, out: Tensor, start: int, slots: int, length: int, kv_heads: int) -> None:
    """The inverse of `by_head`: write y into the tokens of out [T, h, d] from `start`."""
    h, d = out.shape[1:]
    y = y.reshape(kv_heads, slots, h // kv_heads, length, d).permute(1, 3, 0, 2, 4)
    out[start : start + slots * length].view(slots, length, kv_heads, h // kv_heads, d).copy_(y)


def with_prefix(prefix: Tensor, slots: Tensor, n: int) -> Tensor:
    """[kv, P, d] and [kv n, L, d] -> [kv n, P + L, d]: each slot's keys after a copy of the prefix's."""
    kv, P, d = prefix.shape
    repeated = prefix[:, None].expand(kv, n, P, d).reshape(kv * n, P, d)
    return torch.cat([repeated, slots], 1)
