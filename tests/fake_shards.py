"""A shard without a model: the next token is a function of all tokens before it, so any mix-up changes the output."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Protocol, TypeVar

import numpy as np
from msgspec.structs import replace
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from peregrine_router.engine.token_stream import RequestStream
from peregrine_router.request import Request, TokenEvent
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.protocol import (
    PromptLogprobs,
    SequenceFailed,
    Step,
    StepResult,
    decode_to_shard,
    encode,
    pack,
    unpack,
)

VOCAB = 251


def next_token(tokens: Sequence[int], seed: int = 0) -> int:
    """The fake model's next token after `tokens`, in a sequence of this seed."""
    state = 7 + seed
    for token in tokens:
        state = (state * 31 + token + 1) % 1_000_003
    return state % VOCAB


def expected(prompt: Sequence[int], count: int, seed: int = 0) -> list[int]:
    """The `count` tokens that follow `prompt`."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens, seed))
    return tokens[len(prompt) :]


def byte_tokenizer() -> Tokenizer:
    """A tokenizer whose tokens are bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={character: i for i, character in enumerate(alphabet)}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend, frozenset())


T = TypeVar("T")


class Queue(Protocol[T]):
    """A scheduler or an engine."""

    def submit_group(self, requests: list[Request]) -> list[T]: ...


def submit(queue: Queue[T], request: Request) -> T:
    """Queues one request: the scheduler's sequence, or the engine's stream."""
    (queued,) = queue.submit_group([request])
    return queued


class FakeModel:
    """Applies steps as a real shard does, and asserts that they make sense.

    Its cache holds tokens, and it reads earlier tokens from there alone: a block that is shared, copied or given away
    wrongly changes the output. As in each layer of a real one, all tokens of a step are written before any is read.
    """

    def __init__(self, num_blocks: int, block_size: int, random: Random | None = None) -> None:
        """`random`: chooses how many draft tokens are proposed and accepted, in steps that allow them."""
        self.block_size = block_size
        self.random = random
        self.num_draft_tokens = 0
        """Draft tokens of the last step."""
        self.tokens: dict[int, list[int]] = {}
        self.seeds: dict[int, int] = {}
        self.computed: dict[int, int] = {}
        self.blocks: dict[int, list[int]] = {}
        self.cached: dict[int, int] = {}
        """Cached tokens of the sequences that begin in this step, by slot."""
        self.cache = [[-1] * block_size for _ in range(num_blocks)]
        self.batch_sizes: list[int] = []
        self.step_tokens: list[int] = []

    def execute(self, step: Step) -> StepResult:
        """The result of rank 0."""
        for slot in unpack(step.freed).tolist():
            del self.tokens[slot], self.computed[slot], self.blocks[slot], self.seeds[slot]
        self.cached = {new.slot: new.num_cached for new in step.new}
        for new in step.new:
            self._occupy(new.slot, unpack(new.token_ids).tolist(), new.sampling.seed)
            self.computed[new.slot] = new.num_cached
        slots, counts = unpack(step.slots).tolist(), [1] * step.num_decodes + unpack(step.num_tokens).tolist()
        self._copy_blocks(slots, step)
        self._take_blocks(slots, step)
        self.num_draft_tokens = 0
        self.batch_sizes.append(len(slots))
        self.step_tokens.append(sum(counts))
        for slot, count in zip(slots, counts, strict=True):
            self._write(slot, count)
        sampled = [slot for slot in slots if self.computed[slot] == len(self.tokens[slot])]
        for fork in step.forks:
            assert fork.parent in sampled, "the parent of a fork has not computed all of its tokens"
            self._occupy(fork.slot, list(self.tokens[fork.parent]), fork.sampling.seed)
            self.blocks[fork.slot] = list(self.blocks[fork.parent])
            self.computed[fork.slot] = self.computed[fork.parent]
        sampled += [fork.slot for fork in step.forks]
        for slot in sampled:
            self.tokens[slot].append(next_token(self._read(slot), self.seeds[slot]))
        gained = {slot: [self.tokens[slot][-1], *self._accept(slot, step.max_draft_tokens)] for slot in sampled}
        ids = [token for slot in sampled for token in gained[slot]]
        logprobs = np.full(len(ids), -math.log(VOCAB), dtype="<f4").tobytes()
        slots = [slot for slot in sampled for _ in gained[slot]]
        return StepResult(step.id, pack(slots), pack(ids), logprobs, num_draft_tokens=self.num_draft_tokens)

    def _occupy(self, slot: int, tokens: list[int], seed: int) -> None:
        assert slot not in self.tokens, "a new sequence in a slot that was not freed"
        self.tokens[slot], self.seeds[slot] = tokens, seed
        self.computed[slot], self.blocks[slot] = 0, []

    def _copy_blocks(self, slots: list[int], step: Step) -> None:
        copies = list(zip(unpack(step.copy_rows).tolist(), unpack(step.copy_blocks).tolist(), strict=True))
        contents = [list(self.cache[self.blocks[slots[row]][-1]]) for row, _ in copies]
        for (row, block), content in zip(copies, contents, strict=True):
            self.cache[block] = content
            self.blocks[slots[row]][-1] = block

    def _take_blocks(self, slots: list[int], step: Step) -> None:
        rows, blocks = unpack(step.block_rows).tolist(), unpack(step.new_blocks).tolist()
        for row, block in zip(rows, blocks, strict=True):
            self.blocks[slots[row]].append(block)

    def _accept(self, slot: int, most: int) -> list[int]:
        """The accepted draft tokens of a slot; the rejected ones behind them leave rubbish in the cache."""
        if not most or self.random is None:
            return []
        room = len(self.blocks[slot]) * self.block_size - self.computed[slot] - 1
        count = self.random.randint(0, max(min(most, room), 0))
        num_accepted = self.random.randint(0, count)
        self.num_draft_tokens += count
        gained = []
        for _ in range(num_accepted):
            self._write(slot, 1)
            gained.append(next_token(self._read(slot), self.seeds[slot]))
            self.tokens[slot].append(gained[-1])
        for position in range(self.computed[slot], self.computed[slot] + count - num_accepted):
            self.cache[self.blocks[slot][position // self.block_size]][position % self.block_size] = -2
        return gained

    def _write(self, slot: int, count: int) -> None:
        start, end = self.computed[slot], self.computed[slot] + count
        assert count > 0
        assert end <= len(self.tokens[slot]), "computes a token that is not known yet"
        assert end <= len(self.blocks[slot]) * self.block_size, "writes past its blocks"
        for position in range(start, end):
            block = self.blocks[slot][position // self.block_size]
            others = [other for other, table in self.blocks.items() if block in table and other != slot]
            assert all(self._takes_over(other, block) for other in others), "writes to a block that others read"
            self.cache[block][position % self.block_size] = self.tokens[slot][position]
        self.computed[slot] = end

    def _takes_over(self, slot: int, block: int) -> bool:
        """Whether a sequence begins in this step with the block, which another computes for it."""
        return self.blocks[slot].index(block) < self.cached.get(slot, 0) // self.block_size

    def _read(self, slot: int) -> list[int]:
        """The tokens that attention sees, from the cache."""
        table = self.blocks[slot]
        positions = range(self.computed[slot])
        return [self.cache[table[p // self.block_size]][p % self.block_size] for p in positions]


class LivingShards:
    """Shards that live, until they are given up."""

    failure: Exception | None = None
    is_responsive = True
    has_result = False

    def give_up(self, reason: str) -> None:
        self.failure = RuntimeError(reason)
        self._call()

    def on_failure(self, call: Callable[[], object]) -> None:
        self._call = call


class FakeShards(LivingShards):
    """The link to a `FakeModel`, messages encoded and decoded as on the wire."""

    def __init__(self, model: FakeModel, step_seconds: float = 0.0) -> None:
        self.model = model
        self.failed_slot: int | None = None
        """The slot whose sequence fails."""
        self.prompt_logprob: float | None = None
        """The log-probability of every prompt token but the first, where asked for."""
        self.step_seconds = step_seconds
        self._results: deque[StepResult] = deque()

    async def send(self, step: Step) -> None:
        """Executes at once; `receive` returns the result."""
        decoded = decode_to_shard(encode(step))
        assert isinstance(decoded, Step)
        failed = [] if self.failed_slot is None else [SequenceFailed(self.failed_slot, "no way on", "KeyError: 3")]
        result = self.model.execute(decoded)
        scores = self._score(decoded) or result.prompt_logprobs
        self._results.append(replace(result, prompt_logprobs=scores, failed=failed))

    async def receive(self) -> StepResult:
        """The oldest result, a step's time later."""
        await asyncio.sleep(self.step_seconds)
        if self.failure is not None:
            raise self.failure
        return self._results.popleft()

    def _score(self, step: Step) -> list[PromptLogprobs]:
        if self.prompt_logprob is None:
            return []
        logprobs = {new.slot: [self.prompt_logprob] * (new.prompt_length - 1) for new in step.new}
        return [PromptLogprobs(slot, 1, np.array(values, "<f4").tobytes()) for slot, values in logprobs.items()]


async def events_of(stream: RequestStream) -> AsyncIterator[TokenEvent]:
    """The events of a stream one by one."""
    while events := await stream.take():
        for event in events:
            yield event
