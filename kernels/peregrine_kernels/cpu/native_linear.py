"""Linear layers of the native kernels: bfloat16, or 8- or 4-bit integers (W8A8, W4A8)."""

import ctypes
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from peregrine_kernels.cpu.int4_packing import pack_int4
from peregrine_kernels.weights import DenseWeight, Int4Weight, Int8Weight

_ACTIVATIONS = {None: 0, "gelu": 1, "gelu_fast": 2, "gelu_new": 2, "gelu_pytorch_tanh": 2, "relu": 3, "silu": 4}
"""`enum activation` of linear.c."""
_KINDS: dict[type, int] = {DenseWeight: 0, Int8Weight: 1, Int4Weight: 2}
"""`enum weight_kind` of native.h."""


class CWeight(ctypes.Structure):
    """`struct weight` of native.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("packed", "bias", "scales", "offsets")),
        *((name, ctypes.c_long) for name in ("columns", "depth", "activation")),
        ("kind", ctypes.c_int),
        ("group", ctypes.c_long),
        ("has_zeros", ctypes.c_int),
    )


@dataclass(frozen=True, slots=True)
class NativeLinear:
    """A weight as tiles of m outputs, [tiles, in / n, m, n]: a thread reads its tiles as one stream."""

    library: ctypes.CDLL
    packed: Tensor
    """bfloat16 (n = 2) or int8 (n = 4); m is 16 or 32, as the kernels for this CPU have it. 4 bits: see `pack_int4`"""
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
        library: ctypes.CDLL, weight: DenseWeight | Int8Weight | Int4Weight, bias: Tensor | None, activation: str | None
    ) -> "NativeLinear":
        """Copies a weight of bfloat16, `in` a multiple of 2, or of integers; zeros fill it up to whole tiles.

        Raises UnsupportedWeight for 4-bit groups that the kernels do not take.
        """
        scales, offsets, grouping = None, None, (0, False)
        if isinstance(weight, Int4Weight):
            packed = pack_int4(library, weight)
            grouping = weight.group_size, weight.zeros is not None
        else:
            if isinstance(weight, Int8Weight):
                # Those of a checkpoint may be every second of a tensor, or one for all rows.
                scales, offsets = weight.scales.contiguous(), torch.empty(len(weight.values))
            packed = pack_tiles(library, weight.values, offsets)
        addresses = map(address, (packed, bias, scales, offsets))
        struct = CWeight(*addresses, *weight.shape, _ACTIVATIONS[activation], _KINDS[type(weight)], *grouping)
        return NativeLinear(library, packed, bias, scales, offsets, *weight.shape, struct)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        out = x.new_empty(len(x), self.out_features)
        weight = ctypes.byref(self.struct)
        self.library.peregrine_linear(x.data_ptr(), x.stride(0), weight, address(residual), out.data_ptr(), len(x))
        return out

    def bare(self) -> "NativeLinear":
        """The same weight without bias and activation, for measurements."""
        struct = CWeight.from_buffer_copy(self.struct)
        struct.bias, struct.activation = None, _ACTIVATIONS[None]
        return replace(self, bias=None, struct=struct)


def pack_tiles(library: ctypes.CDLL, values: Tensor, offsets: Tensor | None = None) -> Tensor:
    """bfloat16 or int8 [out, in] -> [tiles, in / n, m, n], n elements of 32 bits; offsets: written, if there are any"""
    unit = 4 // values.element_size()
    block, tile = library.peregrine_units_of_block(), library.peregrine_columns_of_tile()
    values, num_units = values.contiguous(), values.shape[1] // unit
    shape = -(-len(values) // tile), -(-num_units // block) * block, tile, unit
    packed = torch.empty(shape, dtype=values.dtype)
    library.peregrine_pack(values.data_ptr(), len(values), num_units, packed.data_ptr(), address(offsets))
    return packed


def address(tensor: Tensor | None) -> int | None:
    """The address of its elements; null for None."""
    return None if tensor is None else tensor.data_ptr()
