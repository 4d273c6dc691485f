"""Positions: rotary embeddings and ALiBi slopes."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from peregrine_kernels import Rotary
from peregrine_server.models.loading.slices import Slice


@dataclass(frozen=True, slots=True, eq=False)
class RotaryPositions:
    """Rotary position embedding (arXiv:2104.09864), its tables computed for each step's positions: no length limit."""

    inverse_frequencies: Tensor
    """float32[D / 2]"""
    dtype: torch.dtype

    @staticmethod
    def of(head_dim: int, theta: float, factor: float, dtype: torch.dtype, device: torch.device) -> "RotaryPositions":
        """Frequencies theta ** (-2i / D), divided by the factor of linear scaling."""
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        frequencies = 1.0 / theta**exponents / factor
        return RotaryPositions(frequencies.to(device), dtype)

    def __call__(self, positions: Tensor) -> Rotary:
        """positions int64[T] -> cos and sin [T, 1, D]; float32 until the cast, as in transformers."""
        return _rotary(positions, self.inverse_frequencies, self.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class DynamicRotaryPositions:
    """Rotary position embedding with dynamic NTK scaling: beyond the trained length the base grows.

    transformers takes the base from the longest position of a call, so a prompt cut elsewhere gives other tokens. Here
    a position has its own base: that of a call which ends there, as every step of transformers' `generate` does. Only a
    prompt longer than the trained length has other logits than there.
    """

    exponents: Tensor
    """float32[D / 2]"""
    theta: float
    factor: float
    max_positions: int
    """The length in tokens that the model was trained for."""
    dtype: torch.dtype

    @staticmethod
    def of(
        head_dim: int, theta: float, factor: float, max_positions: int, dtype: torch.dtype, device: torch.device
    ) -> "DynamicRotaryPositions":
        """The positions of heads of dimension D > 2."""
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        return DynamicRotaryPositions(exponents.to(device), theta, factor, max_positions, dtype)

    def __call__(self, positions: Tensor) -> Rotary:
        """positions int64[T] -> cos and sin [T, 1, D]."""
        length = (positions[:, None, None] + 1).clamp(min=self.max_positions)
        growth = self.factor * length / self.max_positions - (self.factor - 1)
        head_dim = 2 * len(self.exponents)
        base = self.theta * growth ** (head_dim / (head_dim - 2))
        return _rotary(positions, 1.0 / base**self.exponents, self.dtype)


def _rotary(positions: Tensor, inverse_frequencies: Tensor, dtype: torch.dtype) -> Rotary:
    """positions int64[T], inverse_frequencies float32[D / 2] or [T, 1, D / 2] -> cos and sin [T, 1, D]."""
    angles = positions[:, None, None].float() * inverse_frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def alibi_slopes(num_heads: int, heads: Slice, device: torch.device) -> Tensor:
    """float32[heads.size]: the slopes of a rank's heads, computed as transformers does (and BLOOM did); 0 in padding.

    Heads up to a power of two P have slopes 2 ** (-8i / P); the rest take every other one of those for 2P. They are
    rounded to bfloat16, as transformers rounds them whatever the model's type.
    """
    power = 2 ** int(math.log2(num_heads))
    slopes = torch.cat(
        (
            _geometric(power, torch.arange(1, 1 + power, dtype=torch.int32)),
            _geometric(2 * power, torch.arange(1, 1 + 2 * (num_heads - power), 2, dtype=torch.int32)),
        )
    )
    out = torch.zeros(heads.size)
    for run in heads.runs:
        out[run.target : run.target + run.length] = slopes[run.source : run.source + run.length]
    return out.bfloat16().float().to(device)


def _geometric(num_heads: int, powers: Tensor) -> Tensor:
    base = torch.tensor(2 ** (-(2 ** -(math.log2(num_heads) - 3))), dtype=torch.float32)
    return torch.pow(base, powers)
