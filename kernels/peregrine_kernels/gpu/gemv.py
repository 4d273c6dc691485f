"""A linear of one row, which is nothing but reading its weight: y = f(W x + bias), rounded before each of the two.

cuBLAS reads Falcon-7B's weights at 3.3 to 3.8 TB/s for one row on an H200, this at 4.1 (`make bench-gpu`).
"""

import triton
import triton.language as tl
from torch import Tensor

from peregrine_kernels.gpu.activation import NAMES, finished
from peregrine_kernels.gpu.launch import Launch

BLOCK_N = 8
BLOCK_K = 512


@triton.jit
def gemv_kernel(
    # pointers
    x,
    weight,
    bias,
    out,
    # strides
    stride_weight,
    # constants
    OUT: tl.constexpr,
    IN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """One program: BLOCK_N outputs. Each thread sums columns of its own, so that rows are added up once, at the end."""
    row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_row = row < OUT
    lane = tl.arange(0, BLOCK_K)
    dtype: tl.constexpr = weight.dtype.element_ty
    at = weight + tl.minimum(row, OUT - 1).to(tl.int64)[:, None] * stride_weight + lane[None, :]
    sums = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    whole: tl.constexpr = IN // BLOCK_K * BLOCK_K
    for start in tl.range(0, whole, BLOCK_K, num_stages=STAGES):
        w = tl.load(at + start).to(tl.float32)
        sums += w * tl.load(x + start + lane).to(tl.float32)[None, :]
    if whole < IN:
        is_column = whole + lane < IN
        w = tl.load(at + whole, mask=is_column[None, :], other=0.0).to(tl.float32)
        sums += w * tl.load(x + whole + lane, mask=is_column, other=0.0).to(tl.float32)[None, :]
    y = finished(tl.sum(sums, 1), bias, row, is_row, dtype, HAS_BIAS, ACTIVATION)
    tl.store(out + row, y.to(dtype), mask=is_row)


def gemv_launch(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, out: Tensor) -> Launch:
    """x [1, in], weight [out, in] with a row stride, bias [out] -> out [1, out]."""
    out_features, in_features = weight.shape
    return Launch(
        gemv_kernel,
        (triton.cdiv(out_features, BLOCK_N),),
        {"x": x, "weight": weight, "bias": bias, "out": out, "stride_weight": weight.stride(0)},
        {
            "OUT": out_features,
            "IN": in_features,
            "BLOCK_N": BLOCK_N,
            "BLOCK_K": BLOCK_K,
            "STAGES": 3,
            "HAS_BIAS": bias is not None,
            "ACTIVATION": "" if activation is None else NAMES[activation],
        },
        num_warps=4,
    )
