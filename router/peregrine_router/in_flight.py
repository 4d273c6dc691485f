"""Steps that were sent, and what their answers give."""

from dataclasses import dataclass
from typing import NamedTuple

from peregrine_router.request import FinishReason
from peregrine_router.sequence import Sequence


class InFlight(NamedTuple):
    """A step whose answer is not back."""

    id: int
    sequences: dict[int, tuple[Sequence, int]]
    """By slot: who ran there, and its epoch."""
    speculate: int
    """How many tokens each might guess."""


@dataclass(slots=True)
class Committed:
    """A token that a sequence gained."""

    sequence: Sequence
    row: int
    """Of the answer."""
    index: int
    """Counts the generated tokens from 1."""
    token_id: int
    logprob: float | None
    finish_reason: FinishReason | None
    """Why the sequence ends with this token, unless it is None."""
