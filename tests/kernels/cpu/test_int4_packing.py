"""4-bit weights in the layout of the native kernels."""

import pytest
import torch
from torch import Tensor

from int4_weights import random_int4
from peregrine_kernels import UnsupportedWeight
from peregrine_kernels.cpu.int4_packing import TILES_AT_A_TIME, pack_int4
from peregrine_kernels.weights import Int4Weight, unpack_nibbles


def unpacked(weight: Int4Weight, tile: int) -> tuple[Tensor, Tensor]:
    """Integers [out, in] and scales [out, groups], read from the packed bytes as int4.h describes them."""
    packed, is_wide = pack_int4(weight, tile)
    num_outputs, num_inputs = weight.shape
    width = weight.group_size * tile // 2
    lines = packed[..., :width].unflatten(2, (-1, tile, 4))
    # Of unit 2 j in the low four bits, of unit 2 j + 1 in the high ones.
    units = torch.stack((lines & 15, lines >> 4), dim=3)
    integers = units.permute(0, 4, 1, 2, 3, 5).reshape(-1, num_inputs)[:num_outputs]
    scales = packed[..., width:].contiguous().view(torch.float32 if is_wide else torch.bfloat16)[..., :tile]
    return integers, scales.transpose(1, 2).reshape(-1, scales.shape[1])[:num_outputs]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_every_integer_and_scale_is_where_the_kernels_read_it(dtype: torch.dtype) -> None:
    """Also in the last tile, which is not whole, and in the second portion of a large weight."""
    weight = random_int4(16 * TILES_AT_A_TIME + 5, 192, 96, dtype=dtype)
    integers, scales = unpacked(weight, 16)
    assert torch.equal(integers, unpack_nibbles(weight.packed))
    assert torch.equal(scales, weight.scales)


def test_zeros_that_bfloat16_does_not_hold_widen_the_scales() -> None:
    """Nothing is rounded; integer zero points cost no more than they must."""
    whole, fraction = random_int4(16, 64, has_zeros=True), random_int4(16, 64)
    fraction = Int4Weight(fraction.packed, fraction.scales, 64, torch.full((16, 1), 7.123456))
    assert [pack_int4(weight, 16)[1] for weight in (whole, fraction)] == [False, True]
    assert torch.equal(unpacked(fraction, 16)[1], fraction.scales.float())


def test_other_groups_are_refused_with_what_to_do() -> None:
    """Groups of 16 inputs are no multiple of what the kernels take at a time."""
    with pytest.raises(UnsupportedWeight, match="groups of 64"):
        pack_int4(random_int4(16, 64, 16), 16)
