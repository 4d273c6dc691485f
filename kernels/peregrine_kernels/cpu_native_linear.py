"""Linear layers of the native kernels."""

import ctypes
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

TILE = 32
"""Columns of a packed tile, as in native.h."""
ACTIVATIONS = {None: 0, "gelu": 1, "gelu_fast": 2, "gelu_new": 2, "gelu_pytorch_tanh": 2, "relu": 3, "silu": 4}
"""`enum activation` of linear.c."""


@dataclass(frozen=True, slots=True)
class NativeLinear:
    """A bfloat16 weight as tiles of 32 outputs, [tiles, in / 2, 32, 2]: a thread reads its tiles as one stream."""

    library: ctypes.CDLL
    packed: Tensor
    bias: Tensor | None
    activation: str | None
    out_features: int
    in_features: int

    @staticmethod
    def pack(library: ctypes.CDLL, weight: Tensor, bias: Tensor | None, activation: str | None) -> "NativeLinear":
        """weight [out, in], in even; copied."""
        padded = F.pad(weight, (0, 0, 0, -len(weight) % TILE))
        packed = padded.view(-1, TILE, weight.shape[1] // 2, 2).transpose(1, 2).contiguous()
        return NativeLinear(library, packed, bias, activation, *weight.shape)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        out = x.new_empty(len(x), self.out_features)
        self.library.peregrine_linear(
            x.data_ptr(),
            x.stride(0),
            self.packed.data_ptr(),
            None if self.bias is None else self.bias.data_ptr(),
            None if residual is None else residual.data_ptr(),
            out.data_ptr(),
            len(x),
            self.out_features,
            self.in_features,
            ACTIVATIONS[self.activation],
        )
        return out
