"""What surrounds a Falcon's blocks: token embedding and output head, and the two kinds of positions."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from peregrine_kernels import Backend, Linear, Rotary
from peregrine_server.distributed.tensor_parallel import TensorParallel
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.partition import Slice


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """The embedding table, its rows split over the ranks."""

    table: Tensor
    """[V / ranks, H]; rows past the vocabulary are zero."""
    first_token: int
    parallel: TensorParallel

    def __call__(self, token_ids: Tensor) -> Tensor:
        """token_ids int64[T] -> [T, H], alike on every rank."""
        if self.parallel.size == 1:
            return F.embedding(token_ids, self.table)
        rows = token_ids - self.first_token
        is_elsewhere = (rows < 0) | (rows >= len(self.table))
        x = F.embedding(rows.masked_fill(is_elsewhere, 0), self.table).masked_fill_(is_elsewhere[:, None], 0)
        self.parallel.all_reduce(x)
        return x


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """The output head, its rows split over the ranks."""

    linear: Linear
    vocab_size: int
    parallel: TensorParallel

    def __call__(self, hidden: Tensor) -> Tensor:
        """hidden [S, H] -> logits float32[S, V], alike on every rank."""
        logits = self.parallel.all_gather(self.linear(hidden))
        return logits[:, : self.vocab_size].float()


@dataclass(frozen=True, slots=True, eq=False)
class LayerNorm:
    """weight and bias [H]."""

    weight: Tensor
    bias: Tensor
    epsilon: float
    backend: Backend

    @property
    def affine(self) -> tuple[Tensor, Tensor]:
        """Weight and bias."""
        return self.weight, self.bias

    def __call__(self, x: Tensor) -> Tensor:
        """x [T, H] -> [T, H]."""
        return self.backend.layer_norm(x, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True, slots=True, eq=False)
class RotaryPositions:
    """Rotary tables computed for the positions of a step, so that no length is beyond them."""

    inverse_frequencies: Tensor
    """float32[D / 2]"""
    dtype: torch.dtype

    @staticmethod
    def of(config: FalconConfig, dtype: torch.dtype, device: torch.device) -> "RotaryPositions":
        """theta ** (-2i / D), divided by the factor of linear scaling."""
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
        frequencies = 1.0 / config.rope_theta**exponents / config.rope_factor
        return RotaryPositions(frequencies.to(device), dtype)

    def __call__(self, positions: Tensor) -> Rotary:
        """positions int64[T] -> cos and sin [T, 1, D]; float32 until the cast, as in transformers."""
        angles = positions[:, None, None].float() * self.inverse_frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)


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
