"""Whole parallel-attention layers as one call of the native kernels, and what such calls share within a step."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from peregrine_kernels import LayerParts, Linear, Rotary
from peregrine_kernels.cpu_native_linear import CWeight, NativeLinear, address
from peregrine_kernels.paged import PagedBatch


class CLayer(ctypes.Structure):
    """`struct layer` of layer.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("attention_weight", "attention_bias", "mlp_weight", "mlp_bias")),
        *((name, ctypes.POINTER(CWeight)) for name in ("qkv", "up", "dense", "down")),
        ("slopes", ctypes.c_void_p),
        *((name, ctypes.c_long) for name in ("num_heads", "num_kv_heads", "head_dim")),
        ("epsilon", ctypes.c_float),
    )


class CStep(ctypes.Structure):
    """`struct step` of layer.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("slots", "block_tables", "query_starts", "context_lengths")),
        *((name, ctypes.c_long) for name in ("rows", "max_blocks", "num_sequences")),
    )


@dataclass(frozen=True, slots=True, eq=False)
class StepView:
    """One step as the kernels read it, made once for all layers."""

    batch: PagedBatch
    query_starts: Tensor
    """int64[B + 1]: the first query token of each sequence"""
    context_lengths: Tensor
    """int64[B]"""
    struct: CStep

    @staticmethod
    def of(batch: PagedBatch) -> "StepView":
        starts = torch.tensor((0, *batch.query_lengths)).cumsum(0)
        lengths = torch.tensor(batch.context_lengths)
        pointers = map(address, (batch.slot_mapping, batch.block_tables, starts, lengths))
        sizes = len(batch.positions), batch.block_tables.stride(0), len(lengths)
        return StepView(batch, starts, lengths, CStep(*pointers, *sizes))


class Steps:
    """The view of the step that runs now."""

    def __init__(self) -> None:
        self._now: StepView | None = None

    def of(self, batch: PagedBatch) -> StepView:
        """The same object for the same batch."""
        if self._now is None or self._now.batch is not batch:
            self._now = StepView.of(batch)
        return self._now


class NativeLayers:
    """Some layers. It holds the tensors whose addresses the kernels are given."""

    def __init__(self, library: ctypes.CDLL, steps: Steps, layers: Sequence[LayerParts]) -> None:
        """Every linear of `layers` is a NativeLinear."""
        self._run, self._steps, self._layers = library.peregrine_parallel_layers, steps, tuple(layers)
        self._structs = (CLayer * len(layers))(*map(_struct, layers))

    def __call__(
        self, x: Tensor, rotary: Rotary | None, batch: PagedBatch, pages: tuple[Tensor, ...], has_residual: bool
    ) -> Tensor:
        """See `FusedLayers`."""
        out = torch.empty_like(x)
        cos, sin = map(address, rotary or (None, None))
        self._run(
            self._structs,
            len(self._layers),
            ctypes.byref(self._steps.of(batch).struct),
            cos,
            sin,
            x.data_ptr(),
            (ctypes.c_void_p * len(pages))(*map(address, pages)),
            out.data_ptr(),
            pages[0].shape[1],
            has_residual,
        )
        return out


def _struct(parts: LayerParts) -> CLayer:
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
