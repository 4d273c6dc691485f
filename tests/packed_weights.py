"""Quantized weights of every kind that a GPU's kernels multiply."""

from collections.abc import Callable

import torch
from torch import Tensor

from peregrine_kernels.fp8 import quantize_fp8
from peregrine_kernels.int4 import quantize_int4
from peregrine_kernels.int8 import quantize_rows
from peregrine_kernels.nf4 import quantize_nf4
from peregrine_kernels.weights import Int4Weight, QuantizedWeight


def with_zeros(weight: Tensor) -> Int4Weight:
    """Groups whose zero points are no integers, and scales of float32."""
    packed = quantize_int4(weight, 32)
    zeros = 8 + torch.randn(packed.scales.shape, device=weight.device)
    return Int4Weight(packed.packed, packed.scales.float(), 32, zeros)


QUANTIZE: dict[str, Callable[[Tensor], QuantizedWeight]] = {
    "int8": lambda weight: quantize_rows(weight, 127),
    "fp8": quantize_fp8,
    "int4": lambda weight: quantize_int4(weight, 64),
    "int4 in groups of 8": lambda weight: quantize_int4(weight, 8),
    "int4 with zeros": with_zeros,
    "nf4": lambda weight: quantize_nf4(weight, 64),
}
"""weight [out, in] -> the kind."""
