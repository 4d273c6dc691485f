"""The MLP's activation, from one strided part of a concatenated projection to another.

    out = f(x + bias)        rounded after the sum, as transformers does

`x` is the up part of [qkv | up]; `out` is beside the attention's result, where the [dense | down] GEMM reads.
"""

import triton
import triton.language as tl
from torch import Tensor

from peregrine_kernels.gpu.launch import Launch

BLOCK = 1024


@triton.jit
def gelu(x):
    """x * Phi(x), the exact one: Phi is the normal distribution's function, here through 1 - erf by Abramowitz and
    Stegun 7.1.26, to 1.5e-7. With `tl.erf` 256 rows of Falcon-7B took 7.8 us instead of 6.7 (H200)."""
    z = tl.abs(x) * 0.7071067811865476
    t = 1.0 / (1.0 + 0.3275911 * z)
    p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    scaled = 0.5 * x * p * tl.exp(-z * z)
    return tl.where(x < 0, scaled, x - scaled)


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x), which is 0 in every type for an x too small for the exponential."""
    return 1.0 / (1.0 + tl.exp(-tl.maximum(x, -80.0)))


@triton.jit
def gelu_tanh(x):
    """x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))), where (1 + tanh y) / 2 = sigmoid(2 y)."""
    return x * sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit
def activated(x, ACTIVATION: tl.constexpr):
    """float32 x through the function of a name of NAMES."""
    if ACTIVATION == "gelu":
        return gelu(x)
    elif ACTIVATION == "relu":
        return tl.maximum(x, 0.0)
    elif ACTIVATION == "silu":
        return x * sigmoid(x)
    else:
        tl.static_assert(ACTIVATION == "gelu_tanh")
        return gelu_tanh(x)


@triton.jit
def finished(y, bias, output, is_output, dtype: tl.constexpr, HAS_BIAS: tl.constexpr, ACTIVATION: tl.constexpr):
    """Float32 y, a product, with the bias of each `output` added and through the activation, in the order and with
    the roundings of an operation each in `dtype`; "" is no activation."""
    y = y.to(dtype).to(tl.float32)
    if HAS_BIAS:
        y = (y + tl.load(bias + output, mask=is_output, other=0.0).to(tl.float32)).to(dtype).to(tl.float32)
    return y if ACTIVATION == "" else activated(y, ACTIVATION)


@triton.jit
def activation_kernel(
    # pointers
    x,
    bias,
    out,
    # strides
    stride_x,
    stride_out,
    # constants
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """One program: BLOCK elements of one row."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_element = lane < SIZE
    dtype: tl.constexpr = x.dtype.element_ty
    value = tl.load(x + row * stride_x + lane, mask=is_element, other=0.0).to(tl.float32)
    if HAS_BIAS:
        value += tl.load(bias + lane, mask=is_element, other=0.0).to(tl.float32)
        value = value.to(dtype).to(tl.float32)
    value = activated(value, ACTIVATION)
    tl.store(out + row * stride_out + lane, value.to(dtype), mask=is_element)


NAMES = {
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}
"""The kernel's, by transformers'."""


def activation_launch(name: str, x: Tensor, bias: Tensor | None, out: Tensor) -> Launch:
    """x, out [T, F] with row strides, which may be the same; bias [F]."""
    num_rows, size = x.shape
    return Launch(
        activation_kernel,
        (num_rows, triton.cdiv(size, BLOCK)),
        {"x": x, "bias": bias, "out": out, "stride_x": x.stride(0), "stride_out": out.stride(0)},
        {"SIZE": size, "BLOCK": BLOCK, "HAS_BIAS": bias is not None, "ACTIVATION": NAMES[name]},
        num_warps=4,
    )
