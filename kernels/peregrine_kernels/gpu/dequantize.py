"""Rows of a quantized weight as the values that it stands for, for a GEMM to read.

Sizes are arguments, not constants: one kernel a kind of weight serves every model.
"""

import triton
import triton.language as tl
from torch import Tensor

from peregrine_kernels.gpu.launch import Launch
from peregrine_kernels.gpu.packed_weight import arguments_of, byte_values, nibble_values
from peregrine_kernels.weights import QuantizedWeight

BLOCK_ROWS = 16
BLOCK_VALUES = 512


@triton.jit(do_not_specialize=["num_rows"])
def dequantize_kernel(
    # pointers
    codes,
    scales,
    zeros,
    table,
    out,
    # sizes
    row_bytes,
    num_rows,
    # constants
    BLOCK_ROWS: tl.constexpr,
    BLOCK_BYTES: tl.constexpr,
    KIND: tl.constexpr,
    GROUP: tl.constexpr,
    HAS_ZEROS: tl.constexpr,
):
    """One program: BLOCK_BYTES of each of BLOCK_ROWS."""
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    byte = (tl.program_id(1) * BLOCK_BYTES + tl.arange(0, BLOCK_BYTES))[None, :]
    is_byte = (row < num_rows)[:, None] & (byte < row_bytes)
    row = tl.minimum(row, num_rows - 1).to(tl.int64)[:, None]
    dtype: tl.constexpr = out.dtype.element_ty
    code = tl.load(codes + row * row_bytes + byte, mask=is_byte, other=0)
    if GROUP == 0:
        tl.store(out + row * row_bytes + byte, byte_values(code, tl.load(scales + row), KIND, dtype), mask=is_byte)
    else:
        group = row * (2 * row_bytes // GROUP) + byte // (GROUP // 2)
        scale = tl.load(scales + group, mask=is_byte, other=0.0).to(tl.float32)
        zero = tl.load(zeros + group, mask=is_byte, other=0.0) if HAS_ZEROS else 8.0
        low = nibble_values(code & 15, scale, zero, table, KIND, dtype)
        high = nibble_values(code >> 4, scale, zero, table, KIND, dtype)
        at = 2 * (row * row_bytes + byte)[:, :, None] + tl.arange(0, 2)[None, None, :]
        tl.store(out + at, tl.join(low, high), mask=is_byte[:, :, None])


def dequantize_launch(weight: QuantizedWeight, out: Tensor) -> Launch:
    """weight [N, in] -> out [N, in], contiguous, its values rounded to the type of `out`."""
    num_rows, in_features = out.shape
    pointers, constants = arguments_of(weight)
    blocks = {"BLOCK_ROWS": BLOCK_ROWS, "BLOCK_BYTES": BLOCK_VALUES // (2 if constants["GROUP"] else 1)}
    return Launch(
        dequantize_kernel,
        (triton.cdiv(num_rows, BLOCK_ROWS), triton.cdiv(in_features, BLOCK_VALUES)),
        {**pointers, "out": out, "num_rows": num_rows},
        {**constants, **blocks},
        num_warps=4,
    )
