"""Steps whose results are not back yet, and the tokens that results add."""

from array import array
from dataclasses import dataclass

import msgspec

from peregrine_router.request import FinishReason
from peregrine_router.scheduling.sequence import Sequence
from peregrine_server.protocol import Step, StepResult


@dataclass(slots=True, eq=False)
class StepInFlight:
    """A step whose result is not back."""

    step: Step
    sequences: dict[int, Sequence]
    """By slot, the sequences that still wait for the result: one that ends or is preempted leaves."""
    sampled: frozenset[int] = frozenset()
    """The slots for which the result has at least a token each."""
    sent_at: float = 0.0
    """`time.monotonic()`; the engine sets it as it sends the step, because scheduling reads no clock."""


# Made for every token: a dataclass takes three times as long to make.
class NewToken(msgspec.Struct, gc=False):
    """A token that a sequence gained."""

    sequence: Sequence
    row: int
    """Index into the tokens of the step's result."""
    index: int
    """Counts the generated tokens from 1."""
    token_id: int
    logprob: float | None
    finish_reason: FinishReason | None
    """Why the sequence ends with this token; None if it goes on."""


def sampled_tokens(result: StepResult) -> list[tuple[int, int, int, float | None]]:
    """(slot, row, token id, log-probability) of each token of a result."""
    # For a few numbers an array takes a third of numpy's time.
    slots, ids = array("i", result.slots).tolist(), array("i", result.token_ids).tolist()
    logprobs: list[float] | list[None] = array("f", result.logprobs).tolist() or [None] * len(slots)
    return list(zip(slots, range(len(slots)), ids, logprobs, strict=True))
