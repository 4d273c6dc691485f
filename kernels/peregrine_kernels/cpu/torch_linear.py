"""Linear layers on a CPU: weights packed once for oneDNN if it multiplies their dtype, else left as they are."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from peregrine_kernels.dense_linear import DenseLinear
from peregrine_kernels.interface import Linear
from peregrine_kernels.reference.backend import ACTIVATIONS

_EPILOGUES = {
    None: ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_fast": ("gelu", "tanh"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
}
"""Activation -> oneDNN's post-op name and algorithm."""


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A weight in oneDNN's blocked layout, its activation or residual applied before the result is rounded.

    A bias keeps them apart: it is added after rounding, and oneDNN would add it before.
    """

    packed: Tensor
    bias: Tensor | None
    activation: str | None
    out_features: int
    in_features: int

    @staticmethod
    def pack(weight: Tensor, bias: Tensor | None, activation: str | None) -> "PackedLinear":
        """weight [out, in], copied."""
        # The hint of 1 row packs as well for 1024 as hints of 32 and 1024 do: within 2 % at every M (AVX512-BF16).
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)
        return PackedLinear(packed, bias, activation, *weight.shape)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if self.bias is not None:
            return _finish(self.multiply(x), self.bias, self.activation, residual)
        if self.activation is None and residual is not None:
            product: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.packed, None, "add")
            return product
        product = self.multiply(x, self.activation)
        return product if residual is None else product.add_(residual)

    def multiply(self, x: Tensor, activation: str | None = None) -> Tensor:
        """activation(x @ weight.T) without bias"""
        name, algorithm = _EPILOGUES[activation]
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, None, name, [], algorithm)
        return product


class UnpackedLinear(DenseLinear):
    """Where oneDNN has nothing to pack for. A residual alone is applied before the result is rounded here too."""

    __slots__ = ()

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if self.bias is None and self.activation is None and residual is not None:
            return torch.addmm(residual, x, self.weight.T)
        return _finish(F.linear(x, self.weight), self.bias, self.activation, residual)


def torch_linear(weight: Tensor, bias: Tensor | None, activation: str | None) -> Linear:
    """The fastest linear that this CPU has for weight [out, in]."""
    if is_packable(weight.dtype):
        return PackedLinear.pack(weight, bias, activation)
    return UnpackedLinear(weight, bias, activation)


def is_packable(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies this dtype here. Packed float32 is read at 26 GB/s for 1 row where MKL reads 17, at 18
    for 8 rows where MKL reads 7 (2 cores with AVX512, [8192, 2048], out of cache)."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _finish(product: Tensor, bias: Tensor | None, activation: str | None, residual: Tensor | None) -> Tensor:
    """product, which nobody else holds, is overwritten."""
    if bias is not None:
        product.add_(bias)
    if activation is not None:
        product = ACTIVATIONS[activation](product)
    return product if residual is None else product.add_(residual)
