"""A shard without a model: the next token is a function of all tokens before it, so any mix-up changes the output."""

import asyncio
import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from peregrine_server.protocol import Step, StepResult, decode_to_shard, encode, pack, unpack

VOCAB = 251


def next_token(tokens: Sequence[int]) -> int:
    """What the fake model says after `tokens`."""
    state = 7
    for token in tokens:
        state = (state * 31 + token + 1) % 1_000_003
    return state % VOCAB


def expected(prompt: Sequence[int], count: int) -> list[int]:
    """The `count` tokens that follow `prompt`."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


class FakeModel:
    """Applies steps as a real shard does, and asserts that they make sense."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.tokens: dict[int, list[int]] = {}
        self.computed: dict[int, int] = {}
        self.blocks: dict[int, list[int]] = {}
        self.batch_sizes: list[int] = []
        self.step_tokens: list[int] = []

    def execute(self, step: Step) -> StepResult:
        """The answer of rank 0."""
        for slot in unpack(step.freed).tolist():
            del self.tokens[slot], self.computed[slot], self.blocks[slot]
        for new in step.new:
            assert new.slot not in self.tokens, "a new sequence in a slot that was not freed"
            self.tokens[new.slot] = unpack(new.token_ids).tolist()
            self.computed[new.slot] = 0
            self.blocks[new.slot] = []
        slots, counts = unpack(step.slots).tolist(), [1] * step.num_decodes + unpack(step.num_tokens).tolist()
        self._take_blocks(slots, step)
        self.batch_sizes.append(len(slots))
        self.step_tokens.append(sum(counts))
        sampled = [slot for slot, count in zip(slots, counts, strict=True) if self._advance(slot, count)]
        ids = [self.tokens[slot][-1] for slot in sampled]
        logprobs = np.full(len(ids), -math.log(VOCAB), dtype="<f4").tobytes()
        return StepResult(step.id, pack(sampled), pack(ids), logprobs)

    def _take_blocks(self, slots: list[int], step: Step) -> None:
        rows, blocks = unpack(step.block_rows).tolist(), unpack(step.new_blocks).tolist()
        for row, block in zip(rows, blocks, strict=True):
            self.blocks[slots[row]].append(block)
        owned = [block for table in self.blocks.values() for block in table]
        assert len(set(owned)) == len(owned), "two sequences write to one block"
        assert all(0 <= block < self.num_blocks for block in owned)

    def _advance(self, slot: int, count: int) -> bool:
        self.computed[slot] += count
        assert count > 0
        assert self.computed[slot] <= len(self.tokens[slot]), "computes a token that is not known yet"
        assert self.computed[slot] <= len(self.blocks[slot]) * self.block_size, "writes past its blocks"
        if self.computed[slot] < len(self.tokens[slot]):
            return False
        self.tokens[slot].append(next_token(self.tokens[slot]))
        return True


class FakeShards:
    """The link to a `FakeModel`, messages encoded and decoded as on the wire."""

    def __init__(self, model: FakeModel, step_seconds: float = 0.0) -> None:
        self.model = model
        self.failure: Exception | None = None
        self._step_seconds = step_seconds
        self._results: deque[StepResult] = deque()

    async def send(self, step: Step) -> None:
        """Executes at once; the answer waits."""
        decoded = decode_to_shard(encode(step))
        assert isinstance(decoded, Step)
        self._results.append(self.model.execute(decoded))

    async def receive(self) -> StepResult:
        """The oldest answer, a step's time later."""
        await asyncio.sleep(self._step_seconds)
        if self.failure is not None:
            raise self.failure
        return self._results.popleft()
