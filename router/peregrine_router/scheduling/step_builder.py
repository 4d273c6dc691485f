"""The step that is being put together."""

from dataclasses import dataclass, field

from peregrine_router.scheduling.sequence import Sequence
from peregrine_server.protocol import Fork, NewSequence, Step, pack


@dataclass(slots=True)
class StepBuilder:
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
    num_preempted: int = 0
    """Sequences that gave up their slots while it was put together."""
    speculate: int = 0
    """How many tokens each decode may guess."""
    draft_cost: tuple[float, float] = (0.0, 0.0)
    """As in `Step`."""

    def give_blocks(self, blocks: list[int]) -> None:
        """To the sequence that is scheduled next."""
        self.block_rows += [len(self.scheduled)] * len(blocks)
        self.new_blocks += blocks

    def close_decodes(self) -> None:
        """All that were scheduled so far are decodes, which take a token each; others follow."""
        self.num_decodes = len(self.scheduled)
        self.num_tokens = [1] * self.num_decodes
        self.budget -= self.num_decodes

    def add(self, sequence: Sequence, num_tokens: int, new_blocks: list[int]) -> None:
        """Schedules part of a prompt."""
        self.give_blocks(new_blocks)
        self.scheduled.append(sequence)
        self.num_tokens.append(num_tokens)
        self.budget -= num_tokens

    def message(self, step_id: int, freed: list[int]) -> Step:
        """What the shards are told."""
        assert not self.speculate or len(self.scheduled) == self.num_decodes, "a step with guesses is of decodes alone"
        return Step(
            step_id,
            freed=_packed(freed),
            new=[new_sequence(sequence) for sequence in self.new],
            slots=_packed([sequence.slot for sequence in self.scheduled]),
            num_decodes=self.num_decodes,
            num_tokens=_packed(self.num_tokens[self.num_decodes :]),
            block_rows=_packed(self.block_rows),
            new_blocks=_packed(self.new_blocks),
            copy_rows=_packed([row for row, _ in self.copies]),
            copy_blocks=_packed([block for _, block in self.copies]),
            forks=[Fork(fork.slot, parent.slot, fork.request.sampling) for fork, parent in self.forks],
            speculate=self.speculate,
            draft_cost=self.draft_cost,
        )


def _packed(numbers: list[int]) -> bytes:
    """Most steps have most of their lists empty."""
    return pack(numbers) if numbers else b""


def new_sequence(sequence: Sequence) -> NewSequence:
    """What shards are told of a sequence that takes a slot: so far it has computed what it found in the cache."""
    request, num_cached = sequence.request, sequence.num_computed
    return NewSequence(sequence.slot, pack(sequence.token_ids), len(request.prompt_ids), request.sampling, num_cached)
