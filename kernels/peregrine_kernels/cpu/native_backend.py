"""The CPU backend of the native kernels: they compute bfloat16, torch anything else."""

import ctypes

import torch
from torch import Tensor

from peregrine_kernels.cpu.int4_packing import SPAN
from peregrine_kernels.cpu.native_layer import NativeLayer, NativeModel, StepViews, pages_kind
from peregrine_kernels.cpu.native_linear import NativeLinear, address
from peregrine_kernels.cpu.torch_backend import TorchBackend
from peregrine_kernels.interface import FusedLayer, FusedModel, LayerParts, Linear, ModelParts, Rotary
from peregrine_kernels.kv_cache import PagedBatch
from peregrine_kernels.weights import DenseWeight, Int4Weight, Int8Weight, Weight

MAX_HEAD_DIM = 256
NAMES = {"amx": "AMX", "avx512": "AVX512-BF16", "avx2": "AVX2"}
"""The operator's name of each of `native.TARGETS`."""


class NativeBackend(TorchBackend):
    """The C kernels, with whole layers and models as one call. See `Backend` and `FusedOps` for shapes."""

    int4_group = SPAN
    int4_zero_bytes = 2
    int8_row_bytes = 8  # With the offset for unsigned inputs.

    def __init__(self, library: ctypes.CDLL, target: str) -> None:
        """`library`: the kernels compiled for `target`, one of `native.TARGETS`."""
        super().__init__()
        self._library = library
        self._target = target
        self._steps = StepViews()
        self.largest_int8 = int(library.peregrine_max_weight())

    def kernels(self, dtype: torch.dtype) -> str:
        return NAMES[self._target] if dtype == torch.bfloat16 else super().kernels(dtype)

    def argmax(self, logits: Tensor) -> Tensor:
        # torch takes 70 us a row of 65,024, twice that with cold caches.
        if not logits.is_contiguous():
            return super().argmax(logits)
        out = torch.empty(len(logits), dtype=torch.int64)
        self._library.peregrine_argmax(logits.data_ptr(), *logits.shape, out.data_ptr())
        return out

    def gemm_min_rows(self, dtype: torch.dtype) -> int:
        return 1 if dtype == torch.bfloat16 else super().gemm_min_rows(dtype)

    def linear(self, weight: Weight, bias: Tensor | None = None, activation: str | None = None) -> Linear:
        if isinstance(weight, Int8Weight | Int4Weight) or (isinstance(weight, DenseWeight) and is_packable(weight)):
            return NativeLinear.pack(self._library, weight, bias, activation)
        return super().linear(weight, bias, activation)

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
            *pages_kind(pages),
        )

    def attention(
        self,
        q: Tensor,
        batch: PagedBatch,
        pages: Tensor,
        alibi_slopes: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        num_kv_heads, head_dim = pages.shape[3:]
        if q.dtype != torch.bfloat16 or q.stride(0) % 2 or not is_attended(head_dim):
            return super().attention(q, batch, pages, alibi_slopes, out)
        out = q.new_empty(q.shape) if out is None else out
        step = self._steps.of(batch)
        self._library.peregrine_attention(
            q.data_ptr(),
            q.stride(0),
            pages.data_ptr(),
            batch.block_tables.data_ptr(),
            batch.block_tables.stride(0),
            *pages_kind(pages),
            step.query_starts,
            step.context_lengths,
            len(batch.query_lengths),
            num_kv_heads,
            q.shape[1] // (num_kv_heads * head_dim),
            head_dim,
            address(alibi_slopes),
            out.data_ptr(),
            out.stride(0),
        )
        return out


def is_packable(weight: DenseWeight) -> bool:
    """Whether the native linears take it: bfloat16, an even number of inputs."""
    return weight.values.dtype == torch.bfloat16 and weight.shape[1] % 2 == 0


def is_native(parts: LayerParts) -> bool:
    """Whether the native kernels take the whole layer."""
    linears = (parts.qkv, parts.up, parts.dense, parts.down)
    return all(isinstance(linear, NativeLinear) for linear in linears) and is_attended(parts.head_dim)


def is_attended(head_dim: int) -> bool:
    """Whether the native attention takes heads of this dimension."""
    return head_dim % 2 == 0 and head_dim <= MAX_HEAD_DIM
