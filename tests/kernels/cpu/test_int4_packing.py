"""4-bit weights in the layout of the native kernels."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cpu_backends import kernels_for, native, targets
from int4_weights import random_int4
from peregrine_kernels import UnsupportedWeight
from peregrine_kernels.cpu.int4_packing import pack_int4
from peregrine_kernels.native import library
from peregrine_kernels.weights import Int4Weight, unpack_nibbles


def unpacked(target: str, weight: Int4Weight) -> list[Tensor]:
    """Integers [out, in], scales and, if there are any, zeros [out, groups], read from the packed bytes as int4.h
    describes them."""
    kernels = kernels_for(target)
    packed = pack_int4(kernels, weight)
    num_outputs, num_inputs = weight.shape
    tile = kernels.peregrine_columns_of_tile()
    width = weight.group_size * tile // 2
    lines = packed[..., :width].unflatten(2, (-1, tile, 4))
    # Of unit 2 j in the low four bits, of unit 2 j + 1 in the high ones.
    units = torch.stack((lines & 15, lines >> 4), dim=3)
    integers = units.permute(0, 4, 1, 2, 3, 5).reshape(-1, num_inputs)
    groups = packed[..., width:].contiguous().view(torch.bfloat16).split(tile, dim=-1)
    found = [integers, *(each.transpose(1, 2).reshape(-1, each.shape[1]) for each in groups)]
    assert not any(each[num_outputs:].any() for each in found)
    return [each[:num_outputs] for each in found]


@targets
@pytest.mark.parametrize(("num_outputs", "num_inputs", "group_size"), [(69, 192, 96), (3, 128, 64), (64, 32, 32)])
def test_every_integer_scale_and_zero_is_where_the_kernels_read_it(
    target: str, num_outputs: int, num_inputs: int, group_size: int
) -> None:
    """Also in a tile that is not whole, whose other outputs are zeros; integer zero points are not rounded."""
    weight = random_int4(num_outputs, num_inputs, group_size, has_zeros=True)
    integers, scales, zeros = unpacked(target, weight)
    assert torch.equal(integers, unpack_nibbles(weight.packed))
    assert torch.equal(scales, weight.scales)
    assert weight.zeros is not None
    assert torch.equal(8 * zeros.float() + 8, weight.zeros)


@targets
def test_fractional_zero_points_take_16_bits(target: str) -> None:
    """As many as whole ones, rounded by 2^-8 of their distance to 8 at most."""
    whole = random_int4(32, 64, has_zeros=True)
    fraction = replace(whole, zeros=torch.linspace(-300, 20, 32)[:, None])
    assert [pack_int4(kernels_for(target), each).nbytes for each in (whole, fraction)] == [32 * (32 + 2 * 2)] * 2
    assert fraction.zeros is not None
    error = 8 * unpacked(target, fraction)[2].float() + 8 - fraction.zeros
    assert (error.abs() <= 2**-8 * (fraction.zeros - 8).abs()).all()


@native
def test_other_groups_are_refused_with_what_to_do() -> None:
    """Groups of 16 inputs are no multiple of what the kernels take at a time."""
    kernels = library()
    assert kernels is not None
    with pytest.raises(UnsupportedWeight, match="groups of 64"):
        pack_int4(kernels, random_int4(16, 64, 16))
