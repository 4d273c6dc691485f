"""The result of sampling one step."""

from dataclasses import dataclass

from torch import Tensor

from peregrine_server.protocol import SequenceFailed


@dataclass(frozen=True, slots=True)
class Sampled:
    """S tokens with the log-probabilities that their sequences ask for."""

    token_ids: Tensor
    """int64[S]."""
    logprobs: Tensor | None = None
    """float32[S], or None if no sequence asks for them."""
    top: tuple[tuple[int, Tensor, Tensor], ...] = ()
    """(row, ids, log-probabilities) for each row that asks for its likeliest tokens."""
    failed: tuple[SequenceFailed, ...] = ()
    """Sequences that a processor could not go on with, such as one whose grammar has come to a dead end."""
    scores: Tensor | None = None
    """float32[S]: the score of each token, finite unless logits of its row are infinite or no numbers."""
