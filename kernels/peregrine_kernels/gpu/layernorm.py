"""Residual and LayerNorm in one pass: what a block adds, and what the next one's GEMMs read.

x = x + (delta + bias)
y_i = (x - mean x) / sqrt(var x + eps) * weight_i + bias_i        i = 1 or 1, 2
"""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from peregrine_kernels.gpu.launch import Launch
from peregrine_kernels.interface import Affine


@triton.jit
def layer_norm_kernel(
    # pointers
    x,
    delta,
    delta_bias,
    weight_1,
    bias_1,
    y_1,
    weight_2,
    bias_2,
    y_2,
    # sizes
    eps,
    # strides
    stride_x,
    # constants
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_DELTA: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_SECOND: tl.constexpr,
):
    """One program: one row of SIZE <= BLOCK. The sum is rounded as separate additions would be, and kept in delta."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    is_element = lane < SIZE
    dtype: tl.constexpr = x.dtype.element_ty
    value = tl.load(x + row * stride_x + lane, mask=is_element, other=0.0).to(tl.float32)
    if HAS_DELTA:
        added = tl.load(delta + row * SIZE + lane, mask=is_element, other=0.0).to(tl.float32)
        if HAS_BIAS:
            added += tl.load(delta_bias + lane, mask=is_element, other=0.0).to(tl.float32)
            added = added.to(dtype).to(tl.float32)
        value = (value + added).to(dtype)
        tl.store(delta + row * SIZE + lane, value, mask=is_element)
        value = value.to(tl.float32)
    centred = tl.where(is_element, value - tl.sum(value, 0) / SIZE, 0.0)
    normed = centred * tl.rsqrt(tl.sum(centred * centred, 0) / SIZE + eps)
    weight = tl.load(weight_1 + lane, mask=is_element, other=0.0).to(tl.float32)
    bias = tl.load(bias_1 + lane, mask=is_element, other=0.0).to(tl.float32)
    tl.store(y_1 + row * SIZE + lane, (normed * weight + bias).to(dtype), mask=is_element)
    if HAS_SECOND:
        weight = tl.load(weight_2 + lane, mask=is_element, other=0.0).to(tl.float32)
        bias = tl.load(bias_2 + lane, mask=is_element, other=0.0).to(tl.float32)
        tl.store(y_2 + row * SIZE + lane, (normed * weight + bias).to(dtype), mask=is_element)


def layer_norm_launch(
    x: Tensor,
    delta: Tensor | None,
    delta_bias: Tensor | None,
    affines: Sequence[Affine],
    outputs: Sequence[Tensor],
    eps: float,
) -> Launch:
    """x [T, H] with a row stride; delta [T, H], overwritten with the sum; one or two affines with an output each."""
    size = x.shape[1]
    block = triton.next_power_of_2(size)
    second = affines[1] if len(affines) > 1 else (None, None)
    return Launch(
        layer_norm_kernel,
        (len(x),),
        {
            "x": x,
            "delta": delta,
            "delta_bias": delta_bias,
            "weight_1": affines[0][0],
            "bias_1": affines[0][1],
            "y_1": outputs[0],
            "weight_2": second[0],
            "bias_2": second[1],
            "y_2": outputs[1] if len(affines) > 1 else None,
            "eps": eps,
            "stride_x": x.stride(0),
        },
        {
            "SIZE": size,
            "BLOCK": block,
            "HAS_DELTA": delta is not None,
            "HAS_BIAS": delta_bias is not None,
            "HAS_SECOND": len(affines) > 1,
        },
        # 16 elements a thread: two 128-bit loads of 16-bit numbers each.
        num_warps=min(32, max(1, block // 512)),
    )
