"""Steps that were sent, and what their answers give."""

from typing import NamedTuple

import msgspec

from peregrine_router.request import FinishReason
from peregrine_router.sequence import Sequence
from peregrine_server.protocol import StepResult, unpack, unpack_floats


class InFlight(NamedTuple):
    """A step whose answer is not back."""

    id: int
    sequences: dict[int, tuple[Sequence, int]]
    """By slot: who ran there, and its epoch."""
    speculate: int
    """How many tokens each might guess."""


# Made for every token: a dataclass takes three times as long to make.
class Committed(msgspec.Struct, gc=False):
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


def sampled_tokens(result: StepResult) -> list[tuple[int, int, int, float | None]]:
    """(slot, row, token id, log-probability) of each token of an answer."""
    slots = unpack(result.slots).tolist()
    logprobs = unpack_floats(result.logprobs).tolist() or [None] * len(slots)
    return list(zip(slots, range(len(slots)), unpack(result.token_ids).tolist(), logprobs, strict=True))
