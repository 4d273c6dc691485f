"""KV in 8 bits within kernels: `paged.quantize` and its inverse.

e4m3 is encoded and decoded by shifting its bits into a float32's: hardware below sm_89 has no instruction for it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

KINDS = {torch.int8: "int8", torch.float8_e4m3fn: "fp8"}
"""How kernels name the types; "" is none of them."""


def raw(pages: Tensor) -> Tensor:
    """Pages as a kernel takes them: bytes in place of fp8, which the kernel decodes."""
    return pages.view(torch.uint8) if pages.dtype == torch.float8_e4m3fn else pages


@triton.jit
def decode(x, KIND: tl.constexpr, dtype: tl.constexpr):
    """The value of 8-bit x before scaling; exact in every 16-bit type."""
    if KIND == "fp8":
        # Exponent and mantissa of e4m3 at the place of a float32's, whose bias is 120 larger.
        bits = ((x & 0x80).to(tl.uint32) << 24) | ((x & 0x7F).to(tl.uint32) << 20)
        return (bits.to(tl.float32, bitcast=True) * 1.329227995784916e36).to(dtype)
    else:
        return x.to(dtype)


@triton.jit
def encode(x, KIND: tl.constexpr):
    """Float32 x, at most 127 (int8) or 448 (fp8) in size, rounded to the nearest 8-bit value."""
    if KIND == "fp8":
        bits = (x * 7.52316384526264e-37).to(tl.uint32, bitcast=True)
        rounded = (bits & 0x7FFFFFFF) + 0x7FFFF + ((bits >> 20) & 1)
        return ((rounded >> 20) | ((bits >> 24) & 0x80)).to(tl.uint8)
    else:
        return tl.floor(x + 0.5).to(tl.int8)
