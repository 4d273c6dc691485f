"""Linear layers on a CPU: bfloat16 weights packed once for oneDNN, anything else as it is."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from peregrine_kernels import Linear


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A bfloat16 weight in oneDNN's blocked layout."""

    packed: Tensor
    bias: Tensor | None
    out_features: int
    in_features: int

    @staticmethod
    def pack(weight: Tensor, bias: Tensor | None) -> "PackedLinear":
        """weight [out, in], copied."""
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)
        return PackedLinear(packed, bias, *weight.shape)

    def __call__(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], "")
        return product if self.bias is None else product.add_(self.bias)


@dataclass(frozen=True, slots=True)
class PlainLinear:
    """weight [out, in] as it is."""

    weight: Tensor
    bias: Tensor | None

    @property
    def out_features(self) -> int:
        return self.weight.shape[0]

    @property
    def in_features(self) -> int:
        return self.weight.shape[1]

    def __call__(self, x: Tensor) -> Tensor:
        product = F.linear(x, self.weight)
        return product if self.bias is None else product.add_(self.bias)


def cpu_linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """The fastest linear that this CPU has for weight [out, in]."""
    if weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return PackedLinear.pack(weight, bias)
    return PlainLinear(weight, bias)
