"""The random draw of a token: reproducible by (seed, position) alone."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def uniforms(seeds: NDArray[np.uint64], positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """A number in [0, 1) for each (seed, position), by SplitMix64."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        # Seeds are mixed before positions are added, or seed s at position p + 1 would repeat seed s + golden at p.
        state = _mix(seeds + golden) + positions.astype(np.uint64) * golden
        bits = _mix(state)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def cumulative_probabilities(scores: Tensor) -> Tensor:
    """float64[R, V] of scores [R, V]. A row ends in 1, or in no number if one of its scores is infinite or none."""
    return scores.softmax(-1).double().cumsum(-1)


def draw(cumulative: Tensor, uniform: Tensor) -> Tensor:
    """Tokens int64[R], by inverting the cumulative distribution function [R, V] at uniform float64[R]."""
    targets = uniform * cumulative[:, -1]
    ids = torch.searchsorted(cumulative, targets[:, None], right=True)[:, 0]
    return ids.clamp(max=cumulative.shape[-1] - 1)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
