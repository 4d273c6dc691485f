"""Steps that were sent, and what their answers give."""

from array import array
from typing import NamedTuple

import msgspec

from peregrine_router.request import FinishReason
from peregrine_router.scheduling.sequence import Sequence
from peregrine_server.protocol import StepResult


class InFlight(NamedTuple):
    """A step whose answer is not back."""

    id: int
    sequences: dict[int, Sequence]
    """By slot: who runs there, and has not left it since."""
    speculate: int
    """How many tokens each might guess."""


# Made for every token: a dataclass takes three times as long to make.
class NewToken(msgspec.Struct, gc=False):
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
    # Of a few numbers an array is made in a third of the time that numpy takes.
    slots, ids = array("i", result.slots).tolist(), array("i", result.token_ids).tolist()
    logprobs: list[float] | list[None] = array("f", result.logprobs).tolist() or [None] * len(slots)
    return list(zip(slots, range(len(slots)), ids, logprobs, strict=True))
