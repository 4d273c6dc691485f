"""What each slot of the batch asked of its sampling, arranged so that a step looks at what is in use and no more."""

import numpy as np
from numpy.typing import NDArray

from peregrine_server.protocol import SamplingParams

_OFF = SamplingParams()
_SAMPLED = (
    "logit_bias",
    "watermark",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "grammar",
    "min_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "do_sample",
    "logprobs",
    "top_n_tokens",
)
"""Fields that matter when a token is sampled; `seed` and `end_token_ids` only matter with one of these."""
_FIELDS = (*_SAMPLED, "prompt_logprobs")

NO_TOP_K = 2**31 - 1

Rows = NDArray[np.intp]


class SlotParameters:
    """The sampling parameters of `max_batch_size` slots."""

    def __init__(self, max_batch_size: int) -> None:
        self._of = [_OFF] * max_batch_size
        self._is_used = np.zeros((max_batch_size, len(_FIELDS)), dtype=np.bool_)
        self.thresholds: NDArray[np.float64] = np.ones((3, max_batch_size))
        """Of each slot: temperature, top-k and top-p."""
        self.seeds: NDArray[np.uint64] = np.zeros(max_batch_size, dtype=np.uint64)

    def __getitem__(self, slot: int) -> SamplingParams:
        return self._of[slot]

    def __setitem__(self, slot: int, params: SamplingParams) -> None:
        self._of[slot] = params
        self.thresholds[:, slot] = params.temperature, params.top_k or NO_TOP_K, params.top_p
        self.seeds[slot] = params.seed
        self._is_used[slot] = [getattr(params, name) != getattr(_OFF, name) for name in _FIELDS]

    def used(self, slots: NDArray[np.int64]) -> dict[str, Rows]:
        """By field, the indices into `slots` of those that use it; empty if all are greedy and ask for nothing."""
        is_used = self._is_used[slots, : len(_SAMPLED)]
        return {_SAMPLED[at]: np.flatnonzero(is_used[:, at]) for at in np.flatnonzero(is_used.any(0))}

    def wants_prompt_logprobs(self, slots: NDArray[np.int64]) -> Rows:
        """The indices into `slots` of those that do."""
        return np.flatnonzero(self._is_used[slots, -1])
