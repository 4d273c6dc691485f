"""What a step sampled."""

from dataclasses import dataclass

from torch import Tensor

from peregrine_server.protocol import SequenceFailed


@dataclass(frozen=True, slots=True)
class Sampled:
    """S tokens, and what was asked about them."""

    token_ids: Tensor
    """int64[S]."""
    logprobs: Tensor | None = None
    """float32[S], or None if no sequence asked."""
    top: tuple[tuple[int, Tensor, Tensor], ...] = ()
    """(row, ids, log-probabilities) of the rows that asked for their likeliest tokens."""
    failed: tuple[SequenceFailed, ...] = ()
    """Sequences whose grammar cannot be followed any further."""
