"""4-bit weights in the layout of the native kernels (native/int4.h)."""

import ctypes

import torch
from torch import Tensor

from peregrine_kernels.weights import INT4_ZERO, Int4Weight, UnsupportedWeight

SPAN = 32
"""Inputs that the kernels take at a time: a group is a multiple."""


def pack_int4(library: ctypes.CDLL, weight: Int4Weight) -> Tensor:
    """uint8[tiles, groups, bytes] of tiles of outputs; scales and zero points are rounded to bfloat16.

    Raises UnsupportedWeight for groups that are no multiple of SPAN.
    """
    size, num_groups = weight.group_size, weight.scales.shape[1]
    if size % SPAN or num_groups * size != weight.shape[1]:
        raise UnsupportedWeight(
            f"the CPU kernels take 4-bit groups of a multiple of {SPAN} inputs, which {size} of {weight.shape[1]} are "
            "not: quantize in groups of 64, or choose another --quantize"
        )
    integers, parameters = weight.packed.contiguous(), _parameters(weight)
    tile = library.peregrine_columns_of_tile()
    num_bytes = size * tile // 2 + sum(tile * parameter.element_size() for parameter in parameters)
    packed = torch.empty(-(-weight.shape[0] // tile), num_groups, num_bytes, dtype=torch.uint8)
    scales, zeros = (
        (each.data_ptr() for each in parameters) if len(parameters) > 1 else (parameters[0].data_ptr(), None)
    )
    library.peregrine_pack_int4(integers.data_ptr(), scales, zeros, *weight.shape, size, packed.data_ptr())
    return packed


def _parameters(weight: Int4Weight) -> list[Tensor]:
    """Scales, and zeros if there are any, as the kernels read them."""
    parameters = [weight.scales]
    if weight.zeros is not None:
        # The kernels take INT4_ZERO off the integers, and multiply the rest with INT4_ZERO times the sum of inputs.
        # bfloat16 holds integer zero points exactly. Fractions, as GGUF's, cost the demo model 0.004 % (Q4_K) in bits
        # per byte, 4 bits 0.2 %; with zero points and scales in float32 a group would be a fifth larger.
        parameters.append((weight.zeros.float() - INT4_ZERO) / INT4_ZERO)
    return [each.bfloat16().contiguous() for each in parameters]
