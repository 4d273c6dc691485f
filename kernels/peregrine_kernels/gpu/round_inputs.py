"""Inputs of a linear rounded to 8-bit floating-point numbers (e4m3), with one scale a row.

    scale = the least power of two of which 448 times are no less than |x|max        code = round(x / scale)

By a power of two, code * scale has the code's four significant bits and is exact in x's type: what a product of codes
sums is what one of those values sums, whichever kernel is faster.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from peregrine_kernels.gpu.kv_quant import decode, encode, raw
from peregrine_kernels.gpu.launch import Launch

BLOCK = 4096
"""Inputs that a program takes at a time."""


@triton.jit
def round_inputs_kernel(
    # pointers
    x,
    out,
    scales,
    # sizes
    in_features,
    # strides
    stride_x,
    stride_out,
    # constants
    BLOCK: tl.constexpr,
    HAS_SCALES: tl.constexpr,
):
    """One program: a row. What is not finite becomes NaN as a code, and stays as it is as a value."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    largest = tl.full([BLOCK], 1e-30, tl.float32)
    for start in range(0, in_features, BLOCK):
        value = tl.load(x + row * stride_x + start + lane, mask=start + lane < in_features, other=0.0)
        largest = tl.maximum(largest, tl.abs(value.to(tl.float32)))
    # 448 is 1.75 * 2^8: a larger significand than 1.75 carries into the exponent.
    exponent = ((tl.max(largest, 0).to(tl.uint32, bitcast=True) + 0x1FFFFF) >> 23) - 8
    scale = (exponent << 23).to(tl.float32, bitcast=True)
    inverse = ((254 - exponent) << 23).to(tl.float32, bitcast=True)
    if HAS_SCALES:
        tl.store(scales + row, scale)
    for start in range(0, in_features, BLOCK):
        is_input = start + lane < in_features
        value = tl.load(x + row * stride_x + start + lane, mask=is_input, other=0.0).to(tl.float32) * inverse
        code = encode(value, "fp8")
        is_finite = tl.abs(value) <= 448.0
        at = out + row * stride_out + start + lane
        if HAS_SCALES:
            tl.store(at, tl.where(is_finite, code, 0x7F).to(tl.uint8), mask=is_input)
        else:
            rounded = tl.where(is_finite, decode(code, "fp8", tl.float32), value) * scale
            tl.store(at, rounded.to(out.dtype.element_ty), mask=is_input)


def round_inputs_launch(x: Tensor, out: Tensor, scales: Tensor | None = None) -> Launch:
    """x [T, in] with a row stride -> `out`, contiguous: codes float8_e4m3fn[T, in] and their scales float32[T, 1], or
    without scales the values that those stand for, in x's type."""
    num_rows, in_features = x.shape
    return Launch(
        round_inputs_kernel,
        (num_rows,),
        {
            **{"x": x, "out": raw(out), "scales": scales, "in_features": in_features},
            **{"stride_x": x.stride(0), "stride_out": out.stride(0)},
        },
        {"BLOCK": BLOCK, "HAS_SCALES": scales is not None},
        num_warps=8,
    )


def rounded(x: Tensor) -> Tensor:
    """x [T, in] -> the values of its codes, in x's type."""
    out = torch.empty_like(x)
    round_inputs_launch(x, out)()
    return out
