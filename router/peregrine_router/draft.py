"""The step that is being put together."""

from dataclasses import dataclass, field

from peregrine_router.sequence import Sequence
from peregrine_server.protocol import NewSequence, pack


@dataclass(slots=True)
class Draft:
    """Who computes how many tokens, with which blocks."""

    budget: int
    new: list[Sequence] = field(default_factory=list)
    scheduled: list[Sequence] = field(default_factory=list)
    num_tokens: list[int] = field(default_factory=list)
    block_rows: list[int] = field(default_factory=list)
    """Index into `scheduled` of whom each of `new_blocks` is for."""
    new_blocks: list[int] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    """(index into `scheduled`, block)."""
    forks: list[tuple[Sequence, Sequence]] = field(default_factory=list)
    """(fork, parent)."""
    num_decodes: int = 0
    speculate: int = 0
    """How many tokens each decode may guess."""

    def add(self, sequence: Sequence, num_tokens: int, new_blocks: list[int]) -> None:
        if new_blocks:
            self.block_rows += [len(self.scheduled)] * len(new_blocks)
            self.new_blocks += new_blocks
        self.scheduled.append(sequence)
        self.num_tokens.append(num_tokens)
        self.budget -= num_tokens


def new_sequence(sequence: Sequence) -> NewSequence:
    """What shards are told of a sequence that takes a slot: so far it has computed what it found in the cache."""
    request, num_cached = sequence.request, sequence.num_computed
    return NewSequence(sequence.slot, pack(sequence.token_ids), len(request.prompt_ids), request.sampling, num_cached)
