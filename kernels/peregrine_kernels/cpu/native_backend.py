"""The CPU backend where the native kernels run: bfloat16 through them, anything else through torch."""

import ctypes

import torch
from torch import Tensor

from peregrine_kernels.cpu.native_layer import NativeLayer, NativeModel, Steps
from peregrine_kernels.cpu.native_linear import NativeLinear, address
from peregrine_kernels.cpu.torch_backend import CpuBackend
from peregrine_kernels.interface import FusedLayer, FusedModel, LayerParts, Linear, ModelParts, Rotary
from peregrine_kernels.kv_cache import PagedBatch

MAX_HEAD_DIM = 256


class NativeBackend(CpuBackend):
    """See `Backend` for what each op takes and gives."""

    def __init__(self, library: ctypes.CDLL, quantizes: bool = False) -> None:
        """`quantizes`: bfloat16 weights become 8-bit integers as they are packed."""
        super().__init__()
        self._library = library
        self._quantizes = quantizes
        self._steps = Steps()

    @property
    def quantizes(self) -> bool:
        return self._quantizes

    def argmax(self, logits: Tensor) -> Tensor:
        # torch takes 70 us a row of 65,024, twice that with cold caches.
        if not logits.is_contiguous():
            return super().argmax(logits)
        out = torch.empty(len(logits), dtype=torch.int64)
        self._library.peregrine_argmax(logits.data_ptr(), *logits.shape, out.data_ptr())
        return out

    def gemm_min_rows(self, dtype: torch.dtype) -> int:
        return 1 if dtype == torch.bfloat16 else super().gemm_min_rows(dtype)

    def linear(self, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Linear:
        if weight.dtype != torch.bfloat16 or weight.shape[1] % 2:
            return super().linear(weight, bias, activation)
        is_int8 = self._quantizes and weight.shape[1] % 4 == 0
        return NativeLinear.pack(self._library, weight, bias, activation, is_int8)

    def fused_layer(self, parts: LayerParts) -> FusedLayer | None:
        return NativeLayer(self._library, self._steps, parts) if is_native(parts) else None

    def fused_model(self, parts: ModelParts) -> FusedModel | None:
        is_whole = isinstance(parts.head, NativeLinear) and all(map(is_native, parts.layers))
        return NativeModel(self._library, parts) if is_whole else None

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
        cos, sin = rotary or (None, None)
        num_kv_heads, head_dim = pages.shape[3:]
        self._library.peregrine_rotary_kv_write(
            qkv.data_ptr(),
            qkv.stride(0),
            address(cos),
            address(sin),
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
        if q.dtype != torch.bfloat16 or q.stride(0) % 2 or not is_attended(head_dim):
            return super().attention(q, batch, pages, alibi_slopes, out)
        out = q.new_empty(q.shape) if out is None else out
        now = self._steps.of(batch)
        self._library.peregrine_attention(
            q.data_ptr(),
            q.stride(0),
            pages.data_ptr(),
            batch.block_tables.data_ptr(),
            batch.block_tables.stride(0),
            block_size,
            now.query_starts,
            now.context_lengths,
            len(batch.query_lengths),
            num_kv_heads,
            q.shape[1] // (num_kv_heads * head_dim),
            head_dim,
            address(alibi_slopes),
            out.data_ptr(),
            out.stride(0),
        )
        return out


def is_native(parts: LayerParts) -> bool:
    """Whether a layer is all of what the native kernels take."""
    linears = (parts.qkv, parts.up, parts.dense, parts.down)
    return all(isinstance(linear, NativeLinear) for linear in linears) and is_attended(parts.head_dim)


def is_attended(head_dim: int) -> bool:
    """Whether the native attention takes heads of this size."""
    return head_dim % 2 == 0 and head_dim <= MAX_HEAD_DIM
