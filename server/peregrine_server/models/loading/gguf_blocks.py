"""Blocks of weights in GGUF files, decoded: ggml's block_q4_0 and so on (ggml-common.h, ggml-quants.c).

All take uint8[R, B * bytes]: R rows of B blocks each.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from peregrine_server.models.loading.gguf_header import BY_NAME

GROUP = 32
"""Weights of a scale in types of 4 bits; those of 256 weights a block have 8 scales."""
CODEBOOK = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""IQ4_NL's values of the 16 codes."""


class Codes(NamedTuple):
    """Weights of 4 bits: code * scale + offset, or values[code] * scale."""

    codes: Tensor
    """uint8[R, in], below 16."""
    scales: Tensor
    """float32[R, in / GROUP]"""
    offsets: Tensor | None = None
    """float32[R, in / GROUP]; None: a code stands for a value without one."""


def dequantize(type_name: str, rows: Tensor) -> Tensor:
    """The values that blocks stand for, float32[R, B * size]; of a floating-point type too."""
    if type_name in _FLOATS:
        return rows.view(_FLOATS[type_name]).float()
    blocks = rows.unflatten(1, (-1, BY_NAME[type_name].num_bytes))
    if type_name in _CODES:
        codes, scales, offsets = _CODES[type_name](blocks)
        return _combined(_values(type_name, codes).unflatten(1, (-1, GROUP)), scales, offsets)
    return _WIDE[type_name](blocks)


def read_codes(type_name: str, rows: Tensor) -> Codes:
    """The codes, scales and offsets of a type in `FOUR_BITS`."""
    return _CODES[type_name](rows.unflatten(1, (-1, BY_NAME[type_name].num_bytes)))


def _values(type_name: str, codes: Tensor) -> Tensor:
    if type_name == "IQ4_NL":
        return torch.tensor(CODEBOOK, dtype=torch.float32, device=codes.device)[codes.int()]
    return codes.float() - (8 if type_name == "Q4_0" else 0)


def _combined(values: Tensor, scales: Tensor, offsets: Tensor | None) -> Tensor:
    """values [R, groups, n] * scales [R, groups] + offsets -> [R, groups * n]."""
    scaled = values * scales[..., None]
    return (scaled if offsets is None else scaled + offsets[..., None]).flatten(1)


def _half(blocks: Tensor, start: int) -> Tensor:
    """float32[R, B]: the 16-bit number at a byte of each block."""
    return blocks[..., start : start + 2].contiguous().view(torch.float16)[..., 0].float()


def _nibbles(data: Tensor) -> Tensor:
    """uint8[..., n] -> uint8[..., 2 n]: the low four bits of all bytes, then the high ones."""
    return torch.cat((data & 15, data >> 4), dim=-1)


def _bits(data: Tensor, num_bits: int, count: int) -> Tensor:
    """uint8[..., n] -> uint8[..., count, n]: the lowest bits of all bytes, then the next ones."""
    shifts = torch.arange(0, num_bits * count, num_bits, dtype=torch.uint8, device=data.device)
    bits: Tensor = (data[..., None, :] >> shifts[:, None]) & (2**num_bits - 1)
    return bits


def _bit_of_each(data: Tensor) -> Tensor:
    """uint8[..., 4] -> uint8[..., 32]: the bits, the lowest of the first byte first."""
    return _bits(data, 1, 8).transpose(-1, -2).flatten(-2)


def _q4_0(blocks: Tensor) -> Codes:
    return Codes(_nibbles(blocks[..., 2:]).flatten(1), _half(blocks, 0))


def _q4_1(blocks: Tensor) -> Codes:
    return Codes(_nibbles(blocks[..., 4:]).flatten(1), _half(blocks, 0), _half(blocks, 2))


def _q4_k(blocks: Tensor) -> Codes:
    return Codes(_nibbles(blocks[..., 16:].unflatten(-1, (4, 32))).flatten(1), *_k_scales(blocks))


def _k_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """float32[R, 8 B] of scales and offsets: 8 pairs of 6 bits in 12 bytes, and two factors."""
    first, second, third = blocks[..., 4:16].split(4, dim=-1)
    scales = torch.cat((first & 63, (third & 15) | (first >> 6 << 4)), dim=-1)
    minima = torch.cat((second & 63, (third >> 4) | (second >> 6 << 4)), dim=-1)
    factor, minimum = _half(blocks, 0)[..., None], _half(blocks, 2)[..., None]
    return (factor * scales).flatten(1), -(minimum * minima).flatten(1)


def _q5_0(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[..., 6:]) | _bit_of_each(blocks[..., 2:6]) << 4
    return _combined(codes.float() - 16, _half(blocks, 0), None)


def _q5_1(blocks: Tensor) -> Tensor:
    codes = _nibbles(blocks[..., 8:]) | _bit_of_each(blocks[..., 4:8]) << 4
    return _combined(codes.float(), _half(blocks, 0), _half(blocks, 2))


def _q8_0(blocks: Tensor) -> Tensor:
    return _combined(blocks[..., 2:].contiguous().view(torch.int8).float(), _half(blocks, 0), None)


def _q5_k(blocks: Tensor) -> Tensor:
    low = _nibbles(blocks[..., 48:].unflatten(-1, (4, 32))).unflatten(-1, (2, 32)).flatten(2, 3)
    codes = low | _bits(blocks[..., 16:48], 1, 8) << 4
    return _combined(codes.flatten(1, 2).float(), *_k_scales(blocks))


def _q6_k(blocks: Tensor) -> Tensor:
    low = _nibbles(blocks[..., :128].unflatten(-1, (2, 64)))
    high = _bits(blocks[..., 128:192].unflatten(-1, (2, 32)), 2, 4).flatten(-2)
    codes = (low | high << 4).float() - 32
    scales = blocks[..., 192:208].contiguous().view(torch.int8) * _half(blocks, 208)[..., None]
    return _combined(codes.flatten(1).unflatten(1, (-1, 16)), scales.flatten(1), None)


_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_CODES: dict[str, Callable[[Tensor], Codes]] = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q4_K": _q4_k, "IQ4_NL": _q4_0}
_WIDE: dict[str, Callable[[Tensor], Tensor]] = {
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
