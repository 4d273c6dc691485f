"""Weight matrices [out, in] as formats store them, before a backend packs them for its device.

Each has `dequantize`: the values that it stands for, by which kernels are tested.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

INT4_ZERO = 8
"""The zero point of symmetric 4-bit weights: 0..15 stand for -8..7."""
ROWS_AT_A_TIME = 1024
"""Rows that are rounded or dequantized at a time: in float32 a whole weight would take twice the memory that it has in
bfloat16."""


class Weight(Protocol):
    """A weight matrix in some format. Formats outside this package bring classes of their own."""

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)"""


class UnsupportedWeight(ValueError):
    """The backend has no kernel for weights of this format. One line that says what to change."""

    @staticmethod
    def by(backend: str, weight: Weight) -> "UnsupportedWeight":
        """The error of a backend that is given `weight`."""
        return UnsupportedWeight(
            f"the {backend} backend has no linear for a {type(weight).__name__}: choose another --quantize, or none"
        )


@dataclass(frozen=True, slots=True, eq=False)
class DenseWeight:
    """A weight in the model's own dtype."""

    values: Tensor
    """[out, in]"""

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]

    def dequantize(self) -> Tensor:
        """The values, [out, in]."""
        return self.values


@dataclass(frozen=True, slots=True, eq=False)
class _RowWeight:
    """8-bit numbers with one scale a row: values * scales[:, None]."""

    values: Tensor
    """[out, in]"""
    scales: Tensor
    """float32[out]"""

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]

    def dequantize(self) -> Tensor:
        """float32[out, in]."""
        return self.values.float() * self.scales[:, None]


class Int8Weight(_RowWeight):
    """int8 values, `in` a multiple of 4, with one scale a row. See `int8.quantize_rows`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False)
class Float8Weight(_RowWeight):
    """float8_e4m3fn values with one scale a row. See `fp8.quantize_fp8`."""

    rounds_inputs: bool = False
    """Whether a linear rounds its inputs to e4m3, too (W8A8), by a scale a row."""


@dataclass(frozen=True, slots=True, eq=False)
class _NibbleWeight:
    """4-bit codes, two in a byte."""

    packed: Tensor
    """uint8[out, in / 2]: input 2 j is in the low four bits of byte j, input 2 j + 1 in the high ones."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.packed.shape[0], 2 * self.packed.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class Int4Weight(_NibbleWeight):
    """4-bit integers in groups of consecutive inputs, with a scale, which may be negative, and a zero point a group:
    (q - zero) * scale."""

    scales: Tensor
    """bfloat16 or float32 [out, in / group_size]"""
    group_size: int
    """A multiple of 8 that divides `in`."""
    zeros: Tensor | None = None
    """float32[out, in / group_size]: the zero points; None: all are INT4_ZERO."""

    def dequantize(self) -> Tensor:
        """float32[out, in]."""
        zeros = INT4_ZERO if self.zeros is None else self.zeros[..., None]
        groups = unpack_nibbles(self.packed).unflatten(1, (-1, self.group_size))
        return torch.mul(groups.float() - zeros, self.scales[..., None].float()).flatten(1)


@dataclass(frozen=True, slots=True, eq=False)
class CodebookWeight(_NibbleWeight):
    """4-bit indices into a table of 16 values, with a scale for each group of consecutive inputs: table[i] * scale.

    bitsandbytes' nf4 and fp4 are of this kind.
    """

    table: Tensor
    """float32[16]"""
    scales: Tensor
    """float32[out, in / group_size]"""
    group_size: int

    def dequantize(self) -> Tensor:
        """float32[out, in]."""
        groups = self.table[unpack_nibbles(self.packed).int()].unflatten(1, (-1, self.group_size))
        return torch.mul(groups, self.scales[..., None]).flatten(1)


QuantizedWeight = Int8Weight | Float8Weight | Int4Weight | CodebookWeight


def dequantized(weight: QuantizedWeight, dtype: torch.dtype) -> Tensor:
    """The values that it stands for, [out, in] in `dtype`; some rows at a time."""
    out = torch.empty(weight.shape, dtype=dtype, device=weight.scales.device)
    for start in range(0, len(out), ROWS_AT_A_TIME):
        part = slice(start, start + ROWS_AT_A_TIME)
        out[part] = rows_of(weight, part).dequantize()
    return out


def rows_of(weight: QuantizedWeight, rows: slice) -> QuantizedWeight:
    """Some rows of a weight, which share its memory."""
    return _each_tensor(weight, lambda tensor: tensor[rows])


def contiguous(weight: QuantizedWeight) -> QuantizedWeight:
    """The weight with every row right behind the one before, as kernels read them: a copy of what is not so."""
    return _each_tensor(weight, Tensor.contiguous)


def _each_tensor(weight: QuantizedWeight, change: Callable[[Tensor], Tensor]) -> QuantizedWeight:
    """The weight with every tensor changed that has its rows."""
    parts: dict[str, Any] = {}
    for name in (field.name for field in fields(weight) if field.name != "table"):
        if isinstance(value := getattr(weight, name), Tensor):
            parts[name] = change(value)
    return replace(weight, **parts)


def row_scales(weight: Tensor, largest: float) -> Tensor:
    """weight [out, in] -> float32[out]: |row|_max / largest, never 0."""
    return weight.abs().amax(1).float().clamp(min=1e-20) / largest


def as_rounded(weight: Tensor) -> tuple[Tensor, bool]:
    """Rows as the native kernels round them, contiguous in bfloat16 or float32; whether it is float32."""
    if weight.dtype != torch.bfloat16:
        weight = weight.float()
    return weight.contiguous(), weight.dtype == torch.float32


def pack_nibbles(values: Tensor) -> Tensor:
    """uint8[..., K] below 16 -> uint8[..., K / 2], the even elements in the low four bits."""
    return torch.bitwise_or(values[..., ::2], values[..., 1::2] << 4)


def unpack_nibbles(packed: Tensor) -> Tensor:
    """uint8[..., K / 2] -> uint8[..., K], the inverse of `pack_nibbles`."""
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)
