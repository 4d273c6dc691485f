"""The oracle of linears whose inputs are rounded to 8-bit floating-point numbers (e4m3), with one scale a row."""

import torch
from torch import Tensor

from peregrine_kernels.interface import Linear

LARGEST = 0.875, 9
"""Significand and exponent of 448, the largest finite number of e4m3, as `torch.frexp` gives them."""


def round_inputs(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [T, in], finite -> float8_e4m3fn[T, in], x / scale to the nearest even, and scales float32[T, 1]: the least
    powers of two of which 448 times are no less than the row's |x|_max."""
    significands, exponents = torch.frexp(x.abs().amax(1, keepdim=True).float().clamp(min=1e-30))
    largest, exponent = LARGEST
    scales = torch.ldexp(torch.ones_like(significands), exponents - exponent + (significands > largest))
    return (x.float() / scales).to(torch.float8_e4m3fn), scales


class RoundedInputs:
    """A linear on the values that its rounded inputs stand for, which are exact in every type of 16 bits."""

    def __init__(self, linear: Linear) -> None:
        self._linear = linear

    @property
    def out_features(self) -> int:
        return self._linear.out_features

    @property
    def in_features(self) -> int:
        return self._linear.in_features

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        codes, scales = round_inputs(x)
        return self._linear((codes.float() * scales).to(x.dtype), residual)

    def into(self, x: Tensor, out: Tensor) -> None:
        """The same to out [T, out], whose rows may be strided."""
        out.copy_(self(x))
