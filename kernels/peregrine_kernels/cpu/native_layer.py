"""Whole parallel-attention layers, and models of them, as one call of the native kernels."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from peregrine_kernels.cpu.native_linear import CWeight, NativeLinear, address
from peregrine_kernels.interface import LayerParts, Linear, ModelParts, Rotary
from peregrine_kernels.kv_cache import PagedBatch

KV_KINDS = {torch.bfloat16: 0, torch.int8: 1, torch.float8_e4m3fn: 2}
"""`enum kv_kind` of native.h."""


class CLayer(ctypes.Structure):
    """`struct layer` of native.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("attention_weight", "attention_bias", "mlp_weight", "mlp_bias")),
        *((name, ctypes.POINTER(CWeight)) for name in ("qkv", "up", "dense", "down")),
        ("slopes", ctypes.c_void_p),
        *((name, ctypes.c_long) for name in ("num_heads", "num_kv_heads", "head_dim")),
        ("epsilon", ctypes.c_float),
    )


class CModel(ctypes.Structure):
    """`struct model` of model.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("table", "frequencies")),
        ("layers", ctypes.POINTER(CLayer)),
        *((name, ctypes.c_void_p) for name in ("norm_weight", "norm_bias")),
        ("head", ctypes.POINTER(CWeight)),
        *((name, ctypes.c_long) for name in ("num_layers", "hidden", "head_dim")),
        ("epsilon", ctypes.c_float),
    )


class CStep(ctypes.Structure):
    """`struct step` of native.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("slots", "block_tables", "query_starts", "context_lengths")),
        *((name, ctypes.c_long) for name in ("rows", "max_blocks", "num_sequences")),
    )


@dataclass(frozen=True, slots=True, eq=False)
class StepView:
    """A step as the kernels read it. It keeps the arrays alive whose addresses they are given."""

    batch: PagedBatch
    query_starts: "ctypes.Array[ctypes.c_int64]"
    """[B + 1]: the first query token of each sequence"""
    context_lengths: "ctypes.Array[ctypes.c_int64]"
    """[B]"""
    struct: CStep

    @staticmethod
    def of(batch: PagedBatch) -> "StepView":
        starts = _integers((0, *accumulate(batch.query_lengths)))
        lengths = _integers(batch.context_lengths)
        tensors = map(address, (batch.slot_mapping, batch.block_tables))
        sizes = len(batch.positions), batch.block_tables.stride(0), len(lengths)
        return StepView(batch, starts, lengths, CStep(*tensors, *map(ctypes.addressof, (starts, lengths)), *sizes))


class StepViews:
    """The view of the step that runs now, made once for all layers."""

    def __init__(self) -> None:
        self._view: StepView | None = None

    def of(self, batch: PagedBatch) -> StepView:
        """The same object for the same batch."""
        if self._view is None or self._view.batch is not batch:
            self._view = StepView.of(batch)
        return self._view


class NativeLayer:
    """A parallel-attention layer. It keeps the tensors alive whose addresses the kernels are given."""

    def __init__(self, library: ctypes.CDLL, steps: StepViews, parts: LayerParts) -> None:
        """Every linear of `parts` is a NativeLinear."""
        self._run, self._steps, self._parts = library.peregrine_parallel_layer, steps, parts
        self._struct = _layer(parts)

    def __call__(
        self, x: Tensor, rotary: Rotary | None, batch: PagedBatch, pages: Tensor, has_residual: bool
    ) -> Tensor:
        """See `FusedLayer`."""
        out = torch.empty_like(x)
        step = ctypes.byref(self._steps.of(batch).struct)
        tensors = map(address, (*(rotary or (None, None)), x, pages, out))
        self._run(ctypes.byref(self._struct), step, *tensors, *pages_kind(pages), has_residual)
        return out


class NativeModel:
    """A model of such layers. It keeps the tensors alive whose addresses the kernels are given."""

    def __init__(self, library: ctypes.CDLL, parts: ModelParts) -> None:
        """Every linear, the head among them, is a NativeLinear."""
        self._run, self._parts = library.peregrine_model, parts
        layers = (CLayer * len(parts.layers))(*map(_layer, parts.layers))
        first, tensors = parts.layers[0], (parts.table, parts.inverse_frequencies)
        sizes, head = (len(layers), parts.table.shape[1], first.head_dim), ctypes.pointer(_native(parts.head).struct)
        self._struct = CModel(*map(address, tensors), layers, *map(address, parts.norm), head, *sizes, parts.epsilon)

    def __call__(self, token_ids: Tensor, batch: PagedBatch, pages: Sequence[Tensor]) -> Tensor:
        """See `FusedModel`."""
        return self._forward(token_ids, batch, pages, None, None)

    def logits(self, token_ids: Tensor, batch: PagedBatch, pages: Sequence[Tensor], rows: Tensor | None) -> Tensor:
        """See `FusedModel`."""
        logits = torch.empty(len(token_ids if rows is None else rows), self._parts.head.out_features)
        self._forward(token_ids, batch, pages, rows, logits)
        return logits

    def _forward(
        self, token_ids: Tensor, batch: PagedBatch, pages: Sequence[Tensor], rows: Tensor | None, logits: Tensor | None
    ) -> Tensor:
        table = self._parts.table
        out = table.new_empty(len(token_ids), table.shape[1])
        view = StepView.of(batch)
        self._run(
            ctypes.byref(self._struct),
            ctypes.byref(view.struct),
            token_ids.data_ptr(),
            batch.positions.data_ptr(),
            (ctypes.c_void_p * len(pages))(*map(address, pages)),
            *pages_kind(pages[0]),
            out.data_ptr(),
            address(rows),
            0 if logits is None else len(logits),
            address(logits),
        )
        return out


def pages_kind(pages: Tensor) -> tuple[int, int]:
    """Block size and `enum kv_kind` of one layer's pages, as the kernels take them."""
    return pages.shape[1], KV_KINDS[pages.dtype]


def _integers(values: Sequence[int]) -> "ctypes.Array[ctypes.c_int64]":
    return (ctypes.c_int64 * len(values))(*values)


def _layer(parts: LayerParts) -> CLayer:
    linears = [_native(linear) for linear in (parts.qkv, parts.up, parts.dense, parts.down)]
    norms = (*parts.attention_norm, *(parts.mlp_norm or (None, None)))
    return CLayer(
        *map(address, norms),
        *(ctypes.pointer(linear.struct) for linear in linears),
        *(address(parts.alibi_slopes), parts.num_heads, parts.num_kv_heads, parts.head_dim, parts.epsilon),
    )


def _native(linear: Linear) -> NativeLinear:
    assert isinstance(linear, NativeLinear)
    return linear
