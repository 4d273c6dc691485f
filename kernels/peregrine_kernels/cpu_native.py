"""The CPU backend where the native kernels run: bfloat16 through them, anything else through torch."""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from peregrine_kernels import Linear, Rotary
from peregrine_kernels.cpu import CpuBackend
from peregrine_kernels.paged import PagedBatch

TILE = 32
"""Columns of a packed tile, as in native.h."""
MAX_HEAD_DIM = 256
_ACTIVATIONS = {None: 0, "gelu": 1, "gelu_fast": 2, "gelu_new": 2, "gelu_pytorch_tanh": 2, "relu": 3, "silu": 4}
"""`enum activation` of linear.c."""


@dataclass(frozen=True, slots=True)
class NativeLinear:
    """A bfloat16 weight as tiles of 32 outputs, [tiles, in / 2, 32, 2]: a thread reads its tiles as one stream."""

    library: ctypes.CDLL
    packed: Tensor
    bias: Tensor | None
    activation: str | None
    out_features: int
    in_features: int

    @staticmethod
    def pack(library: ctypes.CDLL, weight: Tensor, bias: Tensor | None, activation: str | None) -> "NativeLinear":
        """weight [out, in], in even; copied."""
        padded = F.pad(weight, (0, 0, 0, -len(weight) % TILE))
        packed = padded.view(-1, TILE, weight.shape[1] // 2, 2).transpose(1, 2).contiguous()
        return NativeLinear(library, packed, bias, activation, *weight.shape)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        out = x.new_empty(len(x), self.out_features)
        self.library.peregrine_linear(
            x.data_ptr(),
            x.stride(0),
            self.packed.data_ptr(),
            None if self.bias is None else self.bias.data_ptr(),
            None if residual is None else residual.data_ptr(),
            out.data_ptr(),
            len(x),
            self.out_features,
            self.in_features,
            _ACTIVATIONS[self.activation],
        )
        return out


@dataclass(frozen=True, slots=True)
class Sequences:
    """What attention needs of a batch and of the slopes, made once for all layers."""

    batch: PagedBatch
    slopes: Tensor | None
    query_starts: Tensor
    """int64[B + 1]: the first query token of each sequence"""
    context_lengths: Tensor
    """int64[B]"""
    rounded_slopes: Tensor | None
    """float32[Hq]: as transformers rounds them"""

    @staticmethod
    def of(batch: PagedBatch, slopes: Tensor | None) -> "Sequences":
        starts = torch.tensor((0, *batch.query_lengths)).cumsum(0)
        rounded = None if slopes is None else slopes.bfloat16().float()
        return Sequences(batch, slopes, starts, torch.tensor(batch.context_lengths), rounded)


class NativeBackend(CpuBackend):
    """See `Backend` for what each op takes and gives."""

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__()
        self._library = library
        self._sequences: Sequences | None = None

    def min_rows(self, dtype: torch.dtype) -> int:
        return 1 if dtype == torch.bfloat16 else super().min_rows(dtype)

    def linear(self, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Linear:
        if weight.dtype != torch.bfloat16 or weight.shape[1] % 2:
            return super().linear(weight, bias, activation)
        return NativeLinear.pack(self._library, weight, bias, activation)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        if x.dtype != torch.bfloat16 or not x.is_contiguous():
            return super().layer_norm(x, weight, bias, eps)
        out = torch.empty_like(x)
        pointers = (tensor.data_ptr() for tensor in (x, weight, bias, out))
        self._library.peregrine_layer_norm(*pointers, *x.shape, eps)
        return out

    def rotary_kv_write(
        self, qkv: Tensor, rotary: Rotary | None, batch: PagedBatch, pages: Tensor, num_heads: int
    ) -> None:
        if qkv.dtype != torch.bfloat16:
            super().rotary_kv_write(qkv, rotary, batch, pages, num_heads)
            return
        cos, sin = (None, None) if rotary is None else (table.data_ptr() for table in rotary)
        num_kv_heads, head_dim = pages.shape[3:]
        self._library.peregrine_rotary_kv_write(
            qkv.data_ptr(),
            qkv.stride(0),
            cos,
            sin,
            batch.slot_mapping.data_ptr(),
            pages.data_ptr(),
            len(qkv),
            num_heads,
            num_kv_heads,
            head_dim,
        )

    def attention(
        self,
        q: Tensor,
        batch: PagedBatch,
        pages: Tensor,
        alibi_slopes: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        _, block_size, _, num_kv_heads, head_dim = pages.shape
        if q.dtype != torch.bfloat16 or q.stride(0) % 2 or head_dim % 2 or head_dim > MAX_HEAD_DIM:
            return super().attention(q, batch, pages, alibi_slopes, out)
        out = q.new_empty(q.shape) if out is None else out
        now = self._of(batch, alibi_slopes)
        self._library.peregrine_attention(
            q.data_ptr(),
            q.stride(0),
            pages.data_ptr(),
            batch.block_tables.data_ptr(),
            batch.block_tables.stride(0),
            block_size,
            now.query_starts.data_ptr(),
            now.context_lengths.data_ptr(),
            len(batch.query_lengths),
            num_kv_heads,
            q.shape[1] // (num_kv_heads * head_dim),
            head_dim,
            None if now.rounded_slopes is None else now.rounded_slopes.data_ptr(),
            out.data_ptr(),
            out.stride(0),
        )
        return out

    def _of(self, batch: PagedBatch, slopes: Tensor | None) -> Sequences:
        now = self._sequences
        if now is None or now.batch is not batch or now.slopes is not slopes:
            now = self._sequences = Sequences.of(batch, slopes)
        return now
