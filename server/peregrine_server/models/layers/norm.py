"""Normalization layers."""

from dataclasses import dataclass

from torch import Tensor

from peregrine_kernels import Affine, Backend


@dataclass(frozen=True, slots=True, eq=False)
class LayerNorm:
    """weight and bias [H]."""

    weight: Tensor
    bias: Tensor
    epsilon: float
    backend: Backend

    @property
    def affine(self) -> Affine:
        """Weight and bias."""
        return self.weight, self.bias

    def __call__(self, x: Tensor) -> Tensor:
        """x [T, H] -> [T, H]."""
        return self.backend.layer_norm(x, self.weight, self.bias, self.epsilon)
