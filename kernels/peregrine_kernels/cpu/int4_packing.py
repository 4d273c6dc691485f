"""4-bit weights in the layout of the native kernels (native/int4.h)."""

import ctypes

import torch
from torch import Tensor

from peregrine_kernels.weights import INT4_ZERO, Int4Weight, UnsupportedWeight

SPAN = 32
"""Inputs that the kernels take at a time: a group is a multiple."""


def pack_int4(library: ctypes.CDLL, weight: Int4Weight) -> tuple[Tensor, bool]:
    """uint8[tiles, groups, bytes] of tiles of outputs, and whether scales and zeros are float32 in it: where bfloat16
    does not hold them exactly.

    Raises UnsupportedWeight for groups that are no multiple of SPAN.
    """
    size, num_groups = weight.group_size, weight.scales.shape[1]
    if size % SPAN or num_groups * size != weight.shape[1]:
        raise UnsupportedWeight(
            f"the CPU kernels take 4-bit groups of a multiple of {SPAN} inputs, which {size} of {weight.shape[1]} are "
            "not: quantize in groups of 64, or choose another --quantize"
        )
    integers, (parameters, is_wide) = weight.packed.contiguous(), _parameters(weight)
    tile = library.peregrine_columns_of_tile()
    num_bytes = size * tile // 2 + sum(tile * parameter.element_size() for parameter in parameters)
    packed = torch.empty(-(-weight.shape[0] // tile), num_groups, num_bytes, dtype=torch.uint8)
    scales, zeros = (
        (each.data_ptr() for each in parameters) if len(parameters) > 1 else (parameters[0].data_ptr(), None)
    )
    sizes = *weight.shape, size, is_wide
    library.peregrine_pack_int4(integers.data_ptr(), scales, zeros, *sizes, packed.data_ptr())
    return packed, is_wide


def _parameters(weight: Int4Weight) -> tuple[list[Tensor], bool]:
    """Scales, and zeros if there are any, as the kernels read them, and whether they are float32."""
    parameters = [weight.scales]
    if weight.zeros is not None:
        # The kernels take INT4_ZERO off the integers, and multiply the rest with INT4_ZERO times the sum of inputs.
        parameters.append((weight.zeros.float() - INT4_ZERO) / INT4_ZERO)
    is_wide = not all(map(_is_bfloat16, parameters))
    return [each.to(torch.float32 if is_wide else torch.bfloat16).contiguous() for each in parameters], is_wide


def _is_bfloat16(values: Tensor) -> bool:
    """Whether bfloat16 holds all of them exactly."""
    return values.dtype == torch.bfloat16 or torch.equal(values.bfloat16().to(values.dtype), values)
