"""The oracle: every op of `Backend` in plain PyTorch, one sequence at a time, on any device. Written to be read.

Arithmetic is in float32 (float64 for float64 inputs) and rounded once, at the end, except where transformers rounds in
between and a model would differ: the bias of a linear, the terms of the rotation, and ALiBi.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from peregrine_kernels.dense_linear import DenseLinear
from peregrine_kernels.interface import Affine, Backend, Linear, Rotary
from peregrine_kernels.kv_cache import PagedBatch, read_pages, write_pages
from peregrine_kernels.weights import DenseWeight, UnsupportedWeight, Weight

_tanh_gelu = partial(F.gelu, approximate="tanh")

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_new": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "relu": F.relu,
    "silu": F.silu,
}
"""By the name that transformers' configs use."""


class ReferenceLinear(DenseLinear):
    """Operation by operation."""

    __slots__ = ()

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = x @ self.weight.T
        y = y if self.bias is None else y + self.bias
        y = y if self.activation is None else ACTIVATIONS[self.activation](y)
        return y if residual is None else y + residual


class ReferenceBackend(Backend):
    """Plain PyTorch. See `Backend` for shapes."""

    dequantizes = True

    def kernels(self, dtype: torch.dtype) -> str:
        return "reference"

    def linear(self, weight: Weight, bias: Tensor | None = None, activation: str | None = None) -> Linear:
        if not isinstance(weight, DenseWeight):
            raise UnsupportedWeight.by("reference", weight)
        return ReferenceLinear(weight.values, bias, activation)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        wide = widen(x)
        centred = wide - wide.mean(dim=-1, keepdim=True)
        scale = (centred.square().mean(dim=-1, keepdim=True) + eps).rsqrt()
        return (centred * scale * widen(weight) + widen(bias)).to(x.dtype)

    def add_layer_norms(
        self, x: Tensor, delta: Tensor, bias: Tensor | None, affines: Sequence[Affine], eps: float
    ) -> tuple[Tensor, list[Tensor]]:
        x = x + (delta if bias is None else delta + bias)
        return x, [self.layer_norm(x, weight, shift, eps) for weight, shift in affines]

    def rotary_kv_write(
        self, qkv: Tensor, rotary: Rotary | None, batch: PagedBatch, pages: Tensor, num_heads: int
    ) -> None:
        num_kv_heads, head_dim = pages.shape[3:]
        q, k, v = torch.split(split_heads(qkv, head_dim), [num_heads, num_kv_heads, num_kv_heads], dim=1)
        if rotary is not None:
            q.copy_(rotate(q, rotary))
            k.copy_(rotate(k, rotary))
        write_pages(pages, batch.slot_mapping, torch.stack((k, v), dim=1))

    def attention(
        self,
        q: Tensor,
        batch: PagedBatch,
        pages: Tensor,
        alibi_slopes: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        _, block_size, _, num_kv_heads, head_dim = pages.shape
        num_heads = q.shape[1] // head_dim
        out = q.new_empty(q.shape) if out is None else out
        rows = zip(*(torch.split(x, list(batch.query_lengths)) for x in (q, out)), strict=True)
        for sequence, (q_rows, out_rows) in enumerate(rows):
            tokens = read_pages(pages, batch.slots_of(sequence, block_size))
            k, v = tokens.repeat_interleave(num_heads // num_kv_heads, dim=2).unbind(1)
            attended = causal_attention(split_heads(q_rows, head_dim), k, v, alibi_slopes)
            out_rows.copy_(attended.flatten(1))
        return out


def widen(x: Tensor) -> Tensor:
    """x in float32, or as it is where it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """x [T, heads * D] -> [T, heads, D], a view whatever the row stride."""
    return x.view(len(x), -1, head_dim)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """x [T, heads, D]; cos and sin [T, 1, D] -> x * cos + (-second half, first half) * sin."""
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def causal_attention(q: Tensor, k: Tensor, v: Tensor, alibi_slopes: Tensor | None) -> Tensor:
    """softmax((q.k + alibi) / sqrt(D)) v: q [N, heads, D], the last N of L tokens; k, v [L, heads, D] -> as q."""
    (length, _, head_dim), num_queries = k.shape, len(q)
    position = torch.arange(length, device=q.device)
    scores = torch.einsum("nhd,lhd->hnl", widen(q), widen(k))
    if alibi_slopes is not None:
        scores = scores + (alibi_slopes.bfloat16()[:, None] * position)[:, None, :]
    is_future = position[None, :] > position[length - num_queries :, None]
    probabilities = (scores / head_dim**0.5).masked_fill(is_future, -torch.inf).softmax(dim=-1)
    return torch.einsum("hnl,lhd->nhd", probabilities, widen(v)).to(q.dtype)
