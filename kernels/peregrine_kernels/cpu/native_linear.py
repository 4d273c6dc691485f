"""Linear layers of the native kernels: bfloat16, or 8-bit integers (W8A8)."""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

PART_ROWS = 1024
"""Rows of a weight that are quantized at a time."""
_ACTIVATIONS = {None: 0, "gelu": 1, "gelu_fast": 2, "gelu_new": 2, "gelu_pytorch_tanh": 2, "relu": 3, "silu": 4}
"""`enum activation` of linear.c."""
_KINDS = {torch.bfloat16: 0, torch.int8: 1}
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
    """float32[out]: what 1 stands for in each row of an int8 weight"""
    offsets: Tensor | None
    """float32[out]: 128 times the sum of each row, since inputs are unsigned, around 128"""
    out_features: int
    in_features: int
    struct: CWeight

    @staticmethod
    def pack(
        library: ctypes.CDLL, weight: Tensor, bias: Tensor | None, activation: str | None, is_int8: bool = False
    ) -> "NativeLinear":
        """weight bfloat16[out, in], copied; `in` is a multiple of 2, of 4 for int8, filled up with zeros for AMX."""
        scales = offsets = None
        if is_int8:
            weight, scales = quantize(weight, library.peregrine_max_weight())
            offsets = 128.0 * weight.sum(1, dtype=torch.int32)
        unit = 4 // weight.element_size()
        block = unit * library.peregrine_units_of_block()
        tile = library.peregrine_columns_of_tile()
        padded = F.pad(weight, (0, -weight.shape[1] % block, 0, -len(weight) % tile))
        packed = padded.view(-1, tile, padded.shape[1] // unit, unit).transpose(1, 2).contiguous()
        addresses = map(address, (packed, bias, scales, offsets))
        struct = CWeight(*addresses, *weight.shape, _ACTIVATIONS[activation], _KINDS[packed.dtype])
        out_features, in_features = weight.shape
        return NativeLinear(library, packed, bias, scales, offsets, out_features, in_features, struct)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        out = x.new_empty(len(x), self.out_features)
        weight = ctypes.byref(self.struct)
        self.library.peregrine_linear(x.data_ptr(), x.stride(0), weight, address(residual), out.data_ptr(), len(x))
        return out

    def bare(self) -> "NativeLinear":
        """The same weight without what follows its product."""
        addresses = map(address, (self.packed, None, self.scales, self.offsets))
        struct = CWeight(*addresses, self.out_features, self.in_features, _ACTIVATIONS[None], self.struct.kind)
        return NativeLinear(
            self.library, self.packed, None, self.scales, self.offsets, self.out_features, self.in_features, struct
        )


def quantize(weight: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """weight [out, in] -> int8[out, in] and float32[out], whose product it is: each row's largest is `largest`."""
    integers = torch.empty(weight.shape, dtype=torch.int8)
    scales = weight.abs().amax(1).float().clamp(min=1e-20) / largest
    # By parts: in float32 the whole weight would take twice the memory that it has.
    for out, rows, scale in zip(*(torch.split(x, PART_ROWS) for x in (integers, weight, scales)), strict=True):
        out.copy_((rows.float() / scale[:, None]).round_())
    return integers, scales


def address(tensor: Tensor | None) -> int | None:
    """Where its elements are; null for None."""
    return None if tensor is None else tensor.data_ptr()
