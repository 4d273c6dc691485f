"""The step that is being built."""

from dataclasses import dataclass, field

from peregrine_router.scheduling.sequence import Sequence
from peregrine_server.protocol import Fork, NewSequence, Step, pack


@dataclass(slots=True)
class StepBuilder:
    """The sequences of a step, decodes first, with the tokens and new blocks of each."""

    step_id: int
    budget: int
    """Tokens that may still be added."""
    new: list[Sequence] = field(default_factory=list)
    """Sequences that get their slots in this step."""
    scheduled: list[Sequence] = field(default_factory=list)
    num_tokens: list[int] = field(default_factory=list)
    """Tokens to compute for each of `scheduled`; those of decodes are added by `close_decodes`."""
    block_rows: list[int] = field(default_factory=list)
    """For each of `new_blocks`, the index into `scheduled` of the sequence that gets it."""
    new_blocks: list[int] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    """(index into `scheduled`, block) of each sequence whose last block is copied before it writes to it."""
    forks: list[tuple[Sequence, Sequence]] = field(default_factory=list)
    """(fork, parent)."""
    num_decodes: int = 0
    max_draft_tokens: int = 0
    """Maximum draft tokens of each decode."""
    draft_cost: tuple[float, float] = (0.0, 0.0)
    """As in `Step`."""

    def give_blocks(self, blocks: list[int]) -> None:
        """Adds blocks for the sequence that is scheduled next."""
        self.block_rows += [len(self.scheduled)] * len(blocks)
        self.new_blocks += blocks

    def close_decodes(self) -> None:
        """Counts all sequences scheduled so far as decodes of a token each; prompts follow."""
        self.num_decodes = len(self.scheduled)
        self.num_tokens = [1] * self.num_decodes
        self.budget -= self.num_decodes

    def add(self, sequence: Sequence, num_tokens: int, new_blocks: list[int]) -> None:
        """Schedules part of a prompt."""
        self.give_blocks(new_blocks)
        self.scheduled.append(sequence)
        self.num_tokens.append(num_tokens)
        self.budget -= num_tokens

    def message(self, freed: list[int]) -> Step:
        """The step as the shards receive it. `freed`: slots that they free before it."""
        assert not self.max_draft_tokens or len(self.scheduled) == self.num_decodes, (
            "a speculative step consists of decodes"
        )
        return Step(
            self.step_id,
            freed=_packed(freed),
            new=[_new_sequence(sequence) for sequence in self.new],
            slots=_packed([sequence.slot for sequence in self.scheduled]),
            num_decodes=self.num_decodes,
            num_tokens=_packed(self.num_tokens[self.num_decodes :]),
            block_rows=_packed(self.block_rows),
            new_blocks=_packed(self.new_blocks),
            copy_rows=_packed([row for row, _ in self.copies]),
            copy_blocks=_packed([block for _, block in self.copies]),
            forks=[Fork(fork.slot, parent.slot, fork.request.sampling) for fork, parent in self.forks],
            max_draft_tokens=self.max_draft_tokens,
            draft_cost=self.draft_cost,
        )


def _packed(numbers: list[int]) -> bytes:
    """As `pack`; faster for the empty lists of which most steps consist."""
    return pack(numbers) if numbers else b""


def _new_sequence(sequence: Sequence) -> NewSequence:
    """The message about a sequence that gets a slot: so far it has computed what was in the prefix cache."""
    request, num_cached = sequence.request, sequence.num_computed
    return NewSequence(sequence.slot, pack(sequence.token_ids), len(request.prompt_ids), request.sampling, num_cached)
