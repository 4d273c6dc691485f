"""Continuous batching: which tokens the next step computes. Pure decisions: no torch, no I/O, no clock.

A step has a token budget, a smaller one beside decodes than without any. Running decodes take one token each, first;
what is left goes to prompts, in chunks. Those that were prefilling and the next that waits, which is the least served
tenant's, take turns by when they are due (see fairness.py), as long as slots, blocks and budget last.

When a running sequence needs a block and none is free, the newest running sequence gives up its blocks and waits at the
head of its tenant's queue, to be recomputed; so it does for the next request of a tenant that runs nothing. A tenant's
last running sequence is spared as far as possible. The oldest of all always goes on, and everything ends.

Requests of one prompt form a group. Its first, the prompt_owner, computes the prompt; in the step that completes it the
others fork from it: they share its blocks, and each draws its own next token. Whoever writes to a block that others
still share takes a copy of it first. From then on all are sequences like any other.

A step may be scheduled while others are in flight. Their tokens count as known to the shards (`num_pending`); a
sequence whose length they will reach is left out. One that ends otherwise, or gives up its slot, has then computed a
token too many: it leaves the steps in flight with its slot, and their answers pass it by. That token spoils no block
that others can find, because the K and V of a token are written when the next is sampled: they are an accepted token's,
or lie behind all of those.

Beginnings that are known are not computed again: see `PrefixMatcher`. Decodes may guess tokens, and yield several in a
step: see `DraftBudget`.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterator
from operator import attrgetter

from peregrine_router.request import FinishReason, Request
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.draft_budget import DraftBudget, num_blocks_needed, writes_to_shared
from peregrine_router.scheduling.fair_queue import FairQueue
from peregrine_router.scheduling.in_flight import InFlight, NewToken, sampled_tokens
from peregrine_router.scheduling.prefix_matching import PrefixMatcher
from peregrine_router.scheduling.sequence import Sequence, overtakes
from peregrine_router.scheduling.step_builder import StepBuilder
from peregrine_router.scheduling.step_limits import StepLimits, TenantThrottle
from peregrine_server.protocol import Step, StepResult

_due = attrgetter("virtual_deadline")


class Scheduler:
    """The state machine: submit / cancel / finish change it, `schedule` makes a step, `commit` takes its answer."""

    def __init__(
        self,
        pool: BlockPool,
        *,
        max_batch_size: int,
        max_step_tokens: int,
        eos_token_ids: frozenset[int],
        caches_prefixes: bool = True,
        speculation: DraftBudget | None = None,
    ) -> None:
        """`max_step_tokens` is the token budget of a step; decodes may exceed it only if there are more of them."""
        self.max_mixed_tokens = max_step_tokens
        """The budget of a step with decodes in it, which wait for all of it. May be changed at any time."""
        self.pool = pool
        self.max_step_tokens = max_step_tokens
        self.waiting: FairQueue[Sequence] = FairQueue()
        self.throttle = TenantThrottle(self.waiting, max_batch_size, lead=max_step_tokens)
        self.running: list[Sequence] = []
        """In order of admission."""
        self.num_preemptions = 0
        self.speculation = speculation or DraftBudget(0, 0)
        self.prefixes = PrefixMatcher(pool, is_on=caches_prefixes)
        self._eos_token_ids = eos_token_ids
        self._max_batch_size = max_batch_size
        self._free_slots = list(range(max_batch_size - 1, -1, -1))
        self._freed: list[int] = []
        self._in_flight: deque[InFlight] = deque()
        self._next_step_id = 0

    @property
    def num_waiting(self) -> int:
        """Requests that no step has worked on, or that were preempted."""
        return sum(1 for _ in self.waiting_sequences())

    @property
    def num_free_slots(self) -> int:
        """Sequences that could be admitted beside those that run."""
        return len(self._free_slots) - self._num_reserved()

    def waiting_sequences(self) -> Iterator[Sequence]:
        """What `num_waiting` counts, in no particular order."""
        for prompt_owner in self.waiting:
            yield prompt_owner
            yield from prompt_owner.siblings

    def submit(self, request: Request) -> Sequence:
        """Queues a request. Raises ValueError if it could never fit the cache, even alone."""
        (sequence,) = self.submit_group([request])
        return sequence

    def submit_group(self, requests: list[Request]) -> list[Sequence]:
        """Queues requests of one prompt, which is computed once. Raises ValueError if one could never fit the cache."""
        assert len({(request.prompt_ids, request.cache_salt) for request in requests}) == 1, "a group has one prompt"
        total = max(len(request.prompt_ids) + request.max_new_tokens for request in requests)
        if self.pool.num_blocks_for(total) > self.pool.num_blocks:
            raise ValueError(f"{total} tokens never fit {self.pool.num_blocks} blocks of {self.pool.block_size}")
        sequences = [Sequence(request, list(request.prompt_ids)) for request in requests]
        # No more than can run at once, or the slots that a group waits for would never be free.
        for start in range(0, len(sequences), self._max_batch_size):
            prompt_owner, *siblings = sequences[start : start + self._max_batch_size]
            prompt_owner.adopt_siblings(siblings)
            self.waiting.append(prompt_owner, self.prefixes.num_to_compute(prompt_owner))
        return sequences

    def cancel(self, sequence: Sequence) -> None:
        """The client left: blocks and slot are free from the next step on. No effect on a sequence that is done."""
        if not sequence.is_done:
            sequence.is_cancelled = True
            self._remove(sequence)

    def finish(self, sequence: Sequence, reason: FinishReason, num_generated: int | None = None) -> None:
        """The sequence ends with the tokens that it has, or the first of them: those of one answer may be too many, and
        have ended it already."""
        if num_generated is not None:
            del sequence.token_ids[len(sequence.request.prompt_ids) + num_generated :]
        if not sequence.is_done:
            self._remove(sequence)
        sequence.finish_reason = reason

    def schedule(self) -> Step | None:
        """The next step, or None if nothing can run."""
        assert len(self._in_flight) < 2 or not any(each.speculate for each in self._in_flight), "see `DraftBudget`"
        while not (builder := self._build_step()).scheduled:
            if not builder.num_preempted:
                return None
        return self._emit_step(builder)

    def _build_step(self) -> StepBuilder:
        """What the next step computes. Nothing, perhaps, though others can go on, if all of it had to give way."""
        num_preemptions = self.num_preemptions
        self._preempt_for_new_tenant()
        builder = StepBuilder(self.max_step_tokens)
        prefilling = self._prefilling()
        limits = self.throttle.limits(self.running, prefilling, self._has_room, self.max_mixed_tokens)
        self._schedule_decodes(builder, limits)
        builder.budget = limits.room(builder.num_decodes, builder.budget)
        self._schedule_prompts(builder, prefilling, limits.paused_tenants)
        self._fork(builder)
        builder.num_preempted = self.num_preemptions - num_preemptions
        return builder

    def heartbeat(self) -> Step:
        """A step without work: its answer shows that the shards are there."""
        return self._emit_step(StepBuilder(0))

    def in_flight(self, at: int = 0) -> dict[int, Sequence]:
        """By slot, the sequences of a step in flight, the oldest by default, that still want its answer."""
        return self._in_flight[at].sequences

    def commit(self, result: StepResult) -> list[NewToken]:
        """Appends the sampled tokens of the oldest step in flight; marks what reached its length or an end token.

        Raises ValueError if the answer is not that step's.
        """
        step = self._in_flight[0]
        if result.id != step.id:
            raise ValueError(f"the shards answered step {result.id}, step {step.id} was due")
        tokens = sampled_tokens(result)
        if step.speculate:
            slots = [slot for slot, *_ in tokens]
            self.speculation.settle(step.sequences, slots, step.speculate, result.num_draft_tokens)
        # A sequence that ends leaves the step: what it gains behind its last token is not its own.
        running = step.sequences
        committed = [
            self._commit(sequence, row, token_id, logprob)
            for slot, row, token_id, logprob in tokens
            if (sequence := running.get(slot)) is not None
        ]
        self._in_flight.popleft()
        self.waiting.charge_outputs([each.sequence.request.tenant for each in committed])
        return committed

    def check_integrity(self) -> None:
        """Raises AssertionError unless blocks, slots and queues agree."""
        self.waiting.check_integrity()
        self.pool.check_integrity(sequence.blocks for sequence in self.running)
        slots = [sequence.slot for sequence in self.running]
        assert len(set(slots)) == len(slots), "a slot has two owners"
        assert not set(slots) & set(self._free_slots), "a slot is free and owned"
        assert all(not s.blocks and s.slot == -1 for s in self.waiting), "a waiting sequence holds blocks or a slot"
        siblings = [f for s in (*self.running, *self.waiting) for f in s.siblings]
        assert all(f.slot == -1 and not f.blocks and not f.num_generated for f in siblings), "a sibling runs"
        assert not any(s.is_done for s in (*self.running, *self.waiting, *siblings)), "a finished one is still queued"
        assert not any(s.siblings and s.num_generated for s in self.running), "a prompt_owner left its siblings behind"
        assert self._num_reserved() <= len(self._free_slots), "a sibling's slot was given away"
        for sequence in self.running:
            sequence.check_integrity(self.pool.block_size)
            assert sequence.num_draft_in_flight == 0 or self._in_flight, "guesses of no step in flight"

    def _prefilling(self) -> list[Sequence]:
        """Whose prompts are being computed, in blocks that were all taken on admission; the first that is due first."""
        return sorted([s for s in self.running if len(s.token_ids) - s.num_computed > 1], key=_due)

    def _schedule_decodes(self, builder: StepBuilder, limits: StepLimits) -> None:
        # As `num_known`, which is asked of every sequence in every step.
        decodes = [s for s in self.running if s.num_computed + 1 == len(s.token_ids) + s.num_pending < s.max_total]
        decodes = (
            self.throttle.decodes(decodes, limits) if limits.throttled_tenants or limits.paused_tenants else decodes
        )
        if not (self.waiting and self.num_free_slots > 0):
            builder.speculate = self.speculation.max_draft_tokens(self._next_step_id, decodes, self.running, self.pool)
        for sequence in decodes:
            if (
                sequence.num_computed < sequence.num_exclusive_tokens
                and builder.speculate == sequence.num_draft_in_flight == 0
            ):
                builder.scheduled.append(sequence)
            # Else it may have been preempted for an older sequence of this very loop.
            elif sequence.slot >= 0 and (blocks := self._grow(sequence, builder.speculate)) is not None:
                self._add_decode(builder, sequence, blocks)
        builder.close_decodes()

    def _grow(self, sequence: Sequence, max_draft_tokens: int) -> list[int] | None:
        """The blocks for one more token and guesses, at the cost of the newest; None if `sequence` itself had to go."""
        while (blocks := self.pool.allocate(num_blocks_needed(self.pool, sequence, max_draft_tokens))) is None:
            # Those before it may be in this step already.
            candidates = self.running[self.running.index(sequence) :]
            victim = self._newest_of_several(candidates) or candidates[-1]
            self._preempt(victim)
            if victim is sequence:
                return None
        return blocks

    def _newest_of_several(self, candidates: list[Sequence]) -> Sequence | None:
        """The newest whose tenant runs others as well, so that it is not the oldest of all."""
        counts = Counter(sequence.request.tenant for sequence in self.running)
        return next((s for s in reversed(candidates) if counts[s.request.tenant] > 1), None)

    def _preempt_for_new_tenant(self) -> None:
        """Preempts for the next request if its tenant runs nothing: others must not keep it out by being many."""
        if (sequence := self.waiting.peek()) is None:
            return
        if any(running.request.tenant == sequence.request.tenant for running in self.running):
            return
        while not self._has_room(sequence) and (victim := self._newest_of_several(self.running)) is not None:
            self._preempt(victim)

    def _add_decode(self, builder: StepBuilder, sequence: Sequence, blocks: list[int]) -> None:
        if blocks and writes_to_shared(self.pool, sequence):
            copy, *blocks = blocks
            builder.copies.append((len(builder.scheduled), copy))
            self.pool.free([sequence.blocks.pop()])
            sequence.blocks.append(copy)
        sequence.blocks += blocks
        sequence.num_exclusive_tokens = len(sequence.blocks) * self.pool.block_size
        builder.give_blocks(blocks)
        builder.scheduled.append(sequence)

    def _schedule_prompts(
        self, builder: StepBuilder, prefilling: list[Sequence], paused_tenants: Collection[str]
    ) -> None:
        left, is_open = deque(s for s in prefilling if s.slot >= 0 and s.request.tenant not in paused_tenants), True
        while builder.budget > 0:
            newcomer = self.waiting.peek(paused_tenants) if is_open else None
            if newcomer is not None and (not left or overtakes(newcomer, left[0], self.running)):
                is_open = self._admit(builder, newcomer, paused_tenants)
            elif left:
                self._continue_prefill(builder, left.popleft())
            else:
                break

    def _admit(self, builder: StepBuilder, sequence: Sequence, paused_tenants: Collection[str]) -> bool:
        """Begins with the next that waits. False if there is no room for it."""
        if not self._has_room(sequence):
            return False
        self.waiting.popleft(paused_tenants)
        self._start_prefill(builder, sequence, self.prefixes.acquire_cached(sequence))
        return True

    def _continue_prefill(self, builder: StepBuilder, sequence: Sequence) -> None:
        """The next chunk. If another has computed it meanwhile, all over again: what is in the cache takes no time."""
        if self.prefixes.is_computed_by_another(sequence):
            # Before it gives up its own blocks, which the cache may then forget.
            cached = self.prefixes.acquire_cached(sequence)
            self._release(sequence)
            self._start_prefill(builder, sequence, cached)
        else:
            self._add_chunk(builder, sequence, [])

    def _start_prefill(self, builder: StepBuilder, sequence: Sequence, cached: list[int]) -> None:
        """Takes a slot, and blocks for all of its tokens, the first of them cached: those count as computed."""
        fresh = self.pool.allocate(self.pool.num_blocks_for(len(sequence.token_ids)) - len(cached))
        assert fresh is not None, "there is no room for it"
        sequence.slot, sequence.blocks = self._free_slots.pop(), cached + fresh
        sequence.num_cached_blocks = len(cached)
        sequence.num_computed = len(cached) * self.pool.block_size
        self.prefixes.record_admitted(sequence)
        self.running.append(sequence)
        builder.new.append(sequence)
        self._add_chunk(builder, sequence, sequence.blocks)

    def _add_chunk(self, builder: StepBuilder, sequence: Sequence, new_blocks: list[int]) -> None:
        """As much of its tokens as the budget allows. Who is admitted next finds the blocks that this fills."""
        count = min(len(sequence.token_ids) - sequence.num_computed, builder.budget)
        builder.add(sequence, count, new_blocks)
        self.prefixes.cache_block(sequence, count)

    def _has_room(self, sequence: Sequence) -> bool:
        """Whether there are slots for it and its siblings, and blocks for what of it is not in the cache."""
        reserved = self._num_reserved() + len(sequence.siblings)
        if reserved >= len(self._free_slots):
            return False
        cached = self.prefixes.acquire_cached(sequence)
        missing = self.pool.num_blocks_for(len(sequence.token_ids)) - len(cached)
        # One block of headroom a running sequence, or the newcomer would be preempted as soon as they grow.
        headroom = len(self.running) + reserved if self.running else 0
        # With its cached blocks taken: idle ones no longer count as free.
        has_room = missing + headroom <= self.pool.num_free
        self.pool.free(cached)
        return has_room

    def _num_reserved(self) -> int:
        """Free slots that wait for the forks of running prompt_owners."""
        return sum(len(sequence.siblings) for sequence in self.running)

    def _fork(self, builder: StepBuilder) -> None:
        """The siblings of every prompt that this step completes."""
        prompt_owners = [pair for pair in zip(builder.scheduled, builder.num_tokens, strict=True) if pair[0].siblings]
        for prompt_owner, num_tokens in prompt_owners:
            if prompt_owner.num_computed + num_tokens < len(prompt_owner.token_ids):
                continue
            for fork in prompt_owner.siblings:
                self.pool.share(prompt_owner.blocks)
                fork.prompt_owner, fork.slot, fork.blocks = None, self._free_slots.pop(), list(prompt_owner.blocks)
                fork.num_computed = len(prompt_owner.token_ids)
                fork.num_cached_blocks, fork.block_hashes = (
                    prompt_owner.num_cached_blocks,
                    list(prompt_owner.block_hashes),
                )
                self.running.append(fork)
                builder.forks.append((fork, prompt_owner))
            prompt_owner.siblings, prompt_owner.num_exclusive_tokens = [], 0

    def _emit_step(self, builder: StepBuilder) -> Step:
        if builder.speculate:
            builder.draft_cost = self.speculation.cost.predict(builder.num_decodes)
        step, block_size = builder.message(self._next_step_id, self._freed), self.pool.block_size
        for sequence, num_tokens in zip(builder.scheduled, builder.num_tokens, strict=True):
            sequence.num_computed += num_tokens
        running = builder.scheduled + [fork for fork, _ in builder.forks]
        for sequence in running:
            sequence.num_pending += sequence.num_computed == len(sequence.token_ids) + sequence.num_pending
            sequence.num_draft_in_flight += step.speculate
            if sequence.num_computed // block_size > sequence.num_cached_blocks:
                self.prefixes.cache_block(sequence)
        self._in_flight.append(InFlight(step.id, {s.slot: s for s in running}, step.speculate))
        self._next_step_id += 1
        self._freed = []
        return step

    def _commit(self, sequence: Sequence, row: int, token_id: int, logprob: float | None) -> NewToken:
        sequence.token_ids.append(token_id)
        sequence.num_pending -= 1
        reason = sequence.reason_to_end(token_id, self._eos_token_ids)
        if reason is not None:
            self.finish(sequence, reason)
        logprob = logprob if sequence.request.sampling.logprobs else None
        index = len(sequence.token_ids) - len(sequence.request.prompt_ids)
        return NewToken(sequence, row, index, token_id, logprob, reason)

    def _preempt(self, sequence: Sequence) -> None:
        self._release(sequence)
        self.waiting.appendleft(sequence)
        self.num_preemptions += 1

    def _remove(self, sequence: Sequence) -> None:
        """Out of its queue or slot. The first sibling of one that leads takes its place at the head of the queue."""
        if sequence.prompt_owner is not None:
            sequence.prompt_owner.siblings.remove(sequence)
            sequence.prompt_owner = None
        elif sequence.slot >= 0:
            self._release(sequence)
            for heir in sequence.promote_sibling():
                self.waiting.appendleft(heir)
        elif sequence in self.waiting:
            heirs = sequence.promote_sibling()
            if heirs:
                self.waiting.replace(sequence, heirs[0])
            else:
                self.waiting.remove(sequence)

    def _release(self, sequence: Sequence) -> None:
        self.prefixes.cache_block(sequence)
        self.running.remove(sequence)
        for step in self._in_flight:
            step.sequences.pop(sequence.slot, None)
        self.pool.free(sequence.blocks)
        self._freed.append(sequence.slot)
        self._free_slots.append(sequence.slot)
        sequence.slot, sequence.blocks = -1, []
        sequence.num_computed = sequence.num_pending = sequence.num_draft_in_flight = 0
        sequence.num_cached_blocks = sequence.num_exclusive_tokens = 0
