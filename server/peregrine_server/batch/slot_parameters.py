"""Sampling parameters of every slot, laid out so that a step looks only at the fields that its sequences use."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from peregrine_server.protocol import SamplingParams

NO_TOP_K = 2**31 - 1
"""Top-k threshold of a slot with top_k off; the fused sampling kernel then keeps every token."""

Rows = NDArray[np.intp]
"""Indices into the slots that a method was given, ascending."""


class SlotParameters:
    """The sampling parameters of `max_batch_size` slots."""

    def __init__(self, max_batch_size: int, sampling_fields: Sequence[str]) -> None:
        """`sampling_fields`: SamplingParams fields that matter when a token is sampled (see sampling/registry.py)."""
        self._sampling_fields = tuple(sampling_fields)
        self._fields = (*self._sampling_fields, "prompt_logprobs")
        self._params = [SamplingParams()] * max_batch_size
        self._is_used = np.zeros((max_batch_size, len(self._fields)), dtype=np.bool_)
        """[slots, fields]: whether a slot's value differs from the field's default."""
        self.thresholds: NDArray[np.float64] = np.ones((3, max_batch_size))
        """Temperature, top-k and top-p of each slot."""
        self.seeds: NDArray[np.uint64] = np.zeros(max_batch_size, dtype=np.uint64)

    def __getitem__(self, slot: int) -> SamplingParams:
        return self._params[slot]

    def __setitem__(self, slot: int, params: SamplingParams) -> None:
        self._params[slot] = params
        self.thresholds[:, slot] = params.temperature, params.top_k or NO_TOP_K, params.top_p
        self.seeds[slot] = params.seed
        defaults = type(params)()
        self._is_used[slot] = [getattr(params, name) != getattr(defaults, name) for name in self._fields]

    def used(self, slots: NDArray[np.int64]) -> dict[str, Rows]:
        """Sampling field -> the rows of `slots` that use it; empty if all are greedy with every field off."""
        is_used = self._is_used[slots, : len(self._sampling_fields)]
        return {self._sampling_fields[at]: np.flatnonzero(is_used[:, at]) for at in np.flatnonzero(is_used.any(0))}

    def wants_prompt_logprobs(self, slots: NDArray[np.int64]) -> Rows:
        """The rows of `slots` that ask for prompt log-probabilities."""
        return np.flatnonzero(self._is_used[slots, -1])
