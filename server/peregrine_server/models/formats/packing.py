"""How a linear's weight is kept on its device: packed where the backend has kernels for it, else dequantized.

Imports no torch until a weight is packed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from peregrine_server.models.formats.interface import DTYPE_BYTES, WeightKernels

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from peregrine_kernels import DenseWeight, Int8Weight, Weight
    from peregrine_kernels.weights import QuantizedWeight

Kind = Literal["dense", "int8", "fp8", "int4", "codebook"]

FP8_ROW_BYTES = 4
"""Bytes of a row's scale."""
LARGEST_INT8 = 127
"""The largest integer of a weight that no kernel limits."""
INT8_ALIGNMENT = 4
"""int8 kernels multiply so many inputs at once."""
INT4_SCALE_BYTES, CODEBOOK_SCALE_BYTES = 2, 4
"""Bytes of a group's scale."""
CODEBOOK_TABLE_BYTES = 16 * 4
"""Bytes of the values that a matrix's codes stand for."""


@dataclass(frozen=True, slots=True)
class Packing:
    """The kind of a weight matrix: the class of `peregrine_kernels.weights`, and its groups."""

    kind: Kind
    group_size: int = 0
    """Inputs of a scale; int4 and codebook only."""
    has_zeros: bool = False
    """Whether each group has a zero point; int4 only."""
    rounds_inputs: bool = False
    """Whether linears round their inputs to fp8, too; fp8 only."""

    def num_bytes(self, out_features: int, in_features: int, dtype: str, kernels: WeightKernels) -> int:
        """Bytes of a matrix that is packed for `kernels`, in a model of `dtype`."""
        match self.kind:
            case "dense":
                row_bytes = in_features * DTYPE_BYTES[dtype]
            case "int8":
                row_bytes = in_features + kernels.int8_row_bytes
            case "fp8":
                row_bytes = in_features + FP8_ROW_BYTES
            case "int4":
                group_bytes = INT4_SCALE_BYTES + kernels.int4_zero_bytes * self.has_zeros
                row_bytes = in_features // 2 + in_features // self.group_size * group_bytes
            case "codebook":
                row_bytes = in_features // 2 + in_features // self.group_size * CODEBOOK_SCALE_BYTES
        return out_features * row_bytes + (CODEBOOK_TABLE_BYTES if self.kind == "codebook" else 0)


DENSE, INT8, FP8 = Packing("dense"), Packing("int8"), Packing("fp8")
FP8_W8A8 = Packing("fp8", rounds_inputs=True)


def packing_for(kernels: WeightKernels, wanted: Packing, in_features: int) -> Packing | None:
    """The kind in which a weight that is stored as `wanted` is kept; None if it has no kernels there.

    Where nothing multiplies fp8, its values are rounded once more, to int8: as small, and nearly as near.
    """
    has_int8 = bool(kernels.largest_int8) and in_features % INT8_ALIGNMENT == 0
    match wanted.kind:
        case "fp8" if kernels.has_fp8:
            return wanted
        case "int8" | "fp8" if has_int8:
            return INT8
        case "int4" if kernels.int4_group and wanted.group_size % kernels.int4_group == 0:
            return wanted
        case "codebook" if kernels.has_codebooks:
            return wanted
    return DENSE if wanted == DENSE or kernels.dequantizes else None


def pack(weight: QuantizedWeight | DenseWeight, packing: Packing, kernels: WeightKernels, dtype: torch.dtype) -> Weight:
    """The weight as `packing` of `packing_for`, in a model of `dtype`."""
    from peregrine_kernels import DenseWeight, Int8Weight
    from peregrine_kernels.weights import Float8Weight, dequantized

    if isinstance(weight, DenseWeight):
        return weight if packing == DENSE else round_to(packing, weight.values, kernels)
    if packing == DENSE:
        return DenseWeight(dequantized(weight, dtype))
    if isinstance(weight, Float8Weight) and packing.kind == "fp8":
        return replace(weight, rounds_inputs=packing.rounds_inputs)
    if packing != INT8 or (isinstance(weight, Int8Weight) and _is_within(weight, kernels.largest_int8)):
        return weight
    return round_to(INT8, dequantized(weight, dtype), kernels)


def round_to(packing: Packing, table: Tensor, kernels: WeightKernels) -> QuantizedWeight:
    """table [out, in] rounded to a packing that is not dense."""
    from peregrine_kernels.fp8 import quantize_fp8
    from peregrine_kernels.int4 import quantize_int4
    from peregrine_kernels.int8 import quantize_rows
    from peregrine_kernels.nf4 import quantize_nf4

    match packing.kind:
        case "int8":
            return quantize_rows(table, kernels.largest_int8 or LARGEST_INT8)
        case "fp8":
            return replace(quantize_fp8(table), rounds_inputs=packing.rounds_inputs)
        case "int4":
            return quantize_int4(table, packing.group_size)
        case _:
            return quantize_nf4(table, packing.group_size)


def _is_within(weight: Int8Weight, largest: int) -> bool:
    """Whether no integer is larger; one step more below zero is as safe."""
    lowest, highest = weight.values.aminmax()
    return -largest - 1 <= int(lowest) and int(highest) <= largest
