"""Quantized weights within kernels: their pointers and constants, and the values that codes stand for.

Every kernel rounds a value to the type that it multiplies in, so that a linear has the same weights for any number of
rows.
"""

import triton
import triton.language as tl

from peregrine_kernels.gpu.kv_quant import decode, raw
from peregrine_kernels.gpu.launch import Arguments, Constants
from peregrine_kernels.weights import CodebookWeight, Float8Weight, Int4Weight, Int8Weight, QuantizedWeight


@triton.jit
def byte_values(codes, scale, KIND: tl.constexpr, dtype: tl.constexpr):
    """Values of 8-bit codes."""
    return (decode(codes, KIND, tl.float32) * scale).to(dtype)


@triton.jit
def nibble_values(nibbles, scale, zero, table, KIND: tl.constexpr, dtype: tl.constexpr):
    """Values of 4-bit codes uint8."""
    if KIND == "codebook":
        value = tl.load(table + nibbles)
    else:
        # The last bits of the float32 2^23: an integer conversion is a quarter as fast on sm_80.
        value = (nibbles.to(tl.uint32) | 0x4B000000).to(tl.float32, bitcast=True) - 8388608.0 - zero
    return (value * scale).to(dtype)


def arguments_of(weight: QuantizedWeight) -> tuple[Arguments, Constants]:
    """Arguments that kernels take of a weight: codes, scales, zeros and table, None for those that it lacks; the bytes
    of a row; KIND and GROUP, the inputs of a scale, 0 being all."""
    zeros = weight.zeros if isinstance(weight, Int4Weight) else None
    table = weight.table if isinstance(weight, CodebookWeight) else None
    group_size = weight.group_size if isinstance(weight, Int4Weight | CodebookWeight) else 0
    codes = weight.packed if isinstance(weight, Int4Weight | CodebookWeight) else raw(weight.values)
    pointers = {"codes": codes, "scales": weight.scales, "zeros": zeros, "table": table}
    constants: Constants = {"KIND": _KINDS[type(weight)], "GROUP": group_size, "HAS_ZEROS": zeros is not None}
    return {**pointers, "row_bytes": codes.shape[1]}, constants


_KINDS = {Int8Weight: "int8", Float8Weight: "fp8", Int4Weight: "int4", CodebookWeight: "codebook"}
