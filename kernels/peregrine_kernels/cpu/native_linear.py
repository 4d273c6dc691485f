"""Linear layers of the native kernels: bfloat16, or 8-bit integers (W8A8)."""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from peregrine_kernels.interface import DenseWeight, Int8Weight

_ACTIVATIONS = {None: 0, "gelu": 1, "gelu_fast": 2, "gelu_new": 2, "gelu_pytorch_tanh": 2, "relu": 3, "silu": 4}
"""`enum activation` of linear.c."""
_KINDS: dict[type, int] = {DenseWeight: 0, Int8Weight: 1}
"""`enum weight_kind` of native.h."""


class CWeight(ctypes.Structure):
    """`struct weight` of native.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("packed", "bias", "scales", "offsets")),
        *((name, ctypes.c_long) for name in ("columns", "depth", "activation")),
        ("kind", ctypes.c_int),
    )


@dataclass(frozen=True, slots=True)
class NativeLinear:
    """A weight as tiles of m outputs, [tiles, in / n, m, n]: a thread reads its tiles as one stream."""

    library: ctypes.CDLL
    packed: Tensor
    """bfloat16 (n = 2) or int8 (n = 4); m is 16 or 32, as the kernels for this CPU have it"""
    bias: Tensor | None
    scales: Tensor | None
    """float32[out]: the scale of each row of an int8 weight"""
    offsets: Tensor | None
    """float32[out]: 128 times the sum of each row, since inputs are unsigned, around 128"""
    out_features: int
    in_features: int
    struct: CWeight

    @staticmethod
    def pack(
        library: ctypes.CDLL, weight: DenseWeight | Int8Weight, bias: Tensor | None, activation: str | None
    ) -> "NativeLinear":
        """Copies a weight of bfloat16, `in` a multiple of 2, or of int8; zeros fill it up to whole tiles."""
        values, scales, offsets = weight.values, None, None
        if isinstance(weight, Int8Weight):
            scales, offsets = weight.scales, 128.0 * values.sum(1, dtype=torch.int32)
        unit = 4 // values.element_size()
        block = unit * library.peregrine_units_of_block()
        tile = library.peregrine_columns_of_tile()
        padded = F.pad(values, (0, -values.shape[1] % block, 0, -len(values) % tile))
        packed = padded.view(-1, tile, padded.shape[1] // unit, unit).transpose(1, 2).contiguous()
        addresses = map(address, (packed, bias, scales, offsets))
        struct = CWeight(*addresses, *weight.shape, _ACTIVATIONS[activation], _KINDS[type(weight)])
        return NativeLinear(library, packed, bias, scales, offsets, *weight.shape, struct)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        out = x.new_empty(len(x), self.out_features)
        weight = ctypes.byref(self.struct)
        self.library.peregrine_linear(x.data_ptr(), x.stride(0), weight, address(residual), out.data_ptr(), len(x))
        return out

    def bare(self) -> "NativeLinear":
        """The same weight without bias and activation, for measurements."""
        addresses = map(address, (self.packed, None, self.scales, self.offsets))
        struct = CWeight(*addresses, self.out_features, self.in_features, _ACTIVATIONS[None], self.struct.kind)
        return NativeLinear(
            self.library, self.packed, None, self.scales, self.offsets, self.out_features, self.in_features, struct
        )


def address(tensor: Tensor | None) -> int | None:
    """The address of its elements; null for None."""
    return None if tensor is None else tensor.data_ptr()
