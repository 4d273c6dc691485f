"""4-bit weights in the layout of the native kernels (native/int4.h)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from peregrine_kernels.weights import INT4_ZERO, Int4Weight, UnsupportedWeight

SPAN = 32
"""Inputs that the kernels take at a time: a group is a multiple."""
TILES_AT_A_TIME = 32
"""Tiles that are packed at a time, so that temporaries are small beside the weight."""


def pack_int4(weight: Int4Weight, tile: int) -> tuple[Tensor, bool]:
    """uint8[tiles, groups, bytes] of tiles of `tile` outputs, and whether scales and zeros are float32 in it: where
    bfloat16 does not hold them exactly.

    Raises UnsupportedWeight for groups that are no multiple of SPAN.
    """
    size, num_groups = weight.group_size, weight.scales.shape[1]
    if size % SPAN or num_groups * size != weight.shape[1]:
        raise UnsupportedWeight(
            f"the CPU kernels take 4-bit groups of a multiple of {SPAN} inputs, which {size} of {weight.shape[1]} are "
            "not: quantize in groups of 64, or choose another --quantize"
        )
    parameters, is_wide = _parameters(weight)
    width = size * tile // 2
    num_bytes = width + sum(tile * parameter.element_size() for parameter in parameters)
    packed = torch.empty(-(-weight.shape[0] // tile), num_groups, num_bytes, dtype=torch.uint8)
    rows = TILES_AT_A_TIME * tile
    for out, integers, *parts in zip(
        packed.split(TILES_AT_A_TIME), *(each.split(rows) for each in (weight.packed, *parameters)), strict=True
    ):
        out[..., :width] = _interleave(_whole_tiles(integers, tile), num_groups)
        out[..., width:] = torch.cat([_across(_whole_tiles(part, tile)) for part in parts], dim=-1)
    return packed, is_wide


def _parameters(weight: Int4Weight) -> tuple[list[Tensor], bool]:
    """Scales and zeros as the kernels read them, and whether they are float32."""
    parameters = [weight.scales]
    if weight.zeros is not None:
        # The kernels take INT4_ZERO off the integers, and multiply the rest with INT4_ZERO times the sum of inputs.
        parameters.append((weight.zeros.float() - INT4_ZERO) / INT4_ZERO)
    is_wide = not all(torch.equal(each.bfloat16().to(each.dtype), each) for each in parameters)
    return [each.to(torch.float32 if is_wide else torch.bfloat16) for each in parameters], is_wide


def _whole_tiles(rows: Tensor, tile: int) -> Tensor:
    """[N, width] -> [tiles, tile, width], filled up with zeros."""
    return F.pad(rows, (0, 0, 0, -len(rows) % tile)).view(-1, tile, rows.shape[1])


def _across(parameter: Tensor) -> Tensor:
    """[tiles, tile, groups] -> uint8[tiles, groups, bytes]."""
    return parameter.transpose(1, 2).contiguous().view(torch.uint8)


def _interleave(packed: Tensor, num_groups: int) -> Tensor:
    """uint8[tiles, tile, in / 2] as weights have them -> uint8[tiles, groups, bytes].

    Of 8 inputs, 0 to 3 go to the low halves of four bytes, 4 to 7 to the high ones: a shift and a mask part them.
    """
    words = packed.view(torch.int32)
    spread = [_spread(half & 0xFFFF) for half in (words, words >> 16)]
    tiles: Tensor = torch.bitwise_or(spread[0], spread[1] << 4).unflatten(2, (num_groups, -1))
    return tiles.permute(0, 2, 3, 1).contiguous().view(torch.uint8).flatten(2)


def _spread(nibbles: Tensor) -> Tensor:
    """int32 of four 4-bit integers -> int32 of the same four in bytes."""
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F)):
        nibbles = torch.bitwise_and(torch.bitwise_or(nibbles, nibbles << shift), mask)
    return nibbles
