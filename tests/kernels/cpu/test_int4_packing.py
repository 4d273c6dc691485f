"""4-bit weights in the layout of the native kernels."""

import pytest
import torch
from torch import Tensor

from cpu_backends import kernels_for, native, targets
from int4_weights import random_int4
from peregrine_kernels import UnsupportedWeight
from peregrine_kernels.cpu.int4_packing import pack_int4
from peregrine_kernels.native import library
from peregrine_kernels.weights import Int4Weight, unpack_nibbles


def unpacked(target: str, weight: Int4Weight) -> tuple[Tensor, Tensor]:
    """Integers [out, in] and scales [out, groups], read from the packed bytes as int4.h describes them."""
    kernels = kernels_for(target)
    packed, is_wide = pack_int4(kernels, weight)
    num_outputs, num_inputs = weight.shape
    tile = kernels.peregrine_columns_of_tile()
    width = weight.group_size * tile // 2
    lines = packed[..., :width].unflatten(2, (-1, tile, 4))
    # Of unit 2 j in the low four bits, of unit 2 j + 1 in the high ones.
    units = torch.stack((lines & 15, lines >> 4), dim=3)
    integers = units.permute(0, 4, 1, 2, 3, 5).reshape(-1, num_inputs)
    scales = packed[..., width:].contiguous().view(torch.float32 if is_wide else torch.bfloat16)[..., :tile]
    scales = scales.transpose(1, 2).reshape(-1, scales.shape[1])
    assert not integers[num_outputs:].any()
    assert not scales[num_outputs:].any()
    return integers[:num_outputs], scales[:num_outputs]


@targets
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("num_outputs", "num_inputs", "group_size"), [(69, 192, 96), (3, 128, 64), (64, 32, 32)])
def test_every_integer_and_scale_is_where_the_kernels_read_it(
    target: str, dtype: torch.dtype, num_outputs: int, num_inputs: int, group_size: int
) -> None:
    """Also in a tile that is not whole, whose other outputs are zeros."""
    weight = random_int4(num_outputs, num_inputs, group_size, dtype=dtype)
    integers, scales = unpacked(target, weight)
    assert torch.equal(integers, unpack_nibbles(weight.packed))
    assert torch.equal(scales, weight.scales)


@targets
def test_zeros_that_bfloat16_does_not_hold_widen_the_scales(target: str) -> None:
    """Nothing is rounded; integer zero points cost no more than they must."""
    whole, fraction = random_int4(16, 64, has_zeros=True), random_int4(16, 64)
    fraction = Int4Weight(fraction.packed, fraction.scales, 64, torch.full((16, 1), 7.123456))
    assert [pack_int4(kernels_for(target), weight)[1] for weight in (whole, fraction)] == [False, True]
    assert torch.equal(unpacked(target, fraction)[1], fraction.scales.float())


@native
def test_other_groups_are_refused_with_what_to_do() -> None:
    """Groups of 16 inputs are no multiple of what the kernels take at a time."""
    kernels = library()
    assert kernels is not None
    with pytest.raises(UnsupportedWeight, match="groups of 64"):
        pack_int4(kernels, random_int4(16, 64, 16))
