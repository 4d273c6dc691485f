"""Continuous batching: which tokens the next step computes. Pure decisions: no torch, no I/O, no clock.

A step has a token budget, a smaller one beside decodes than without any. Running decodes take one token each, first;
what is left goes to prompts, in chunks. Those that were begun and the next that waits, which is the least served
tenant's, take turns by when they are due (see fairness.py), as long as slots, blocks and budget last.

When a running sequence needs a block and none is free, the newest running sequence gives up its blocks and waits at the
head of its tenant's queue, to be recomputed; so it does for the next request of a tenant that runs nothing. A tenant's
last running sequence is spared as far as possible. The oldest of all always goes on, and everything ends.

Requests of one prompt form a group. Its first, the leader, computes the prompt; in the step that completes it the
others fork from it: they share its blocks, and each draws its own next token. Whoever writes to a block that others
still share takes a copy of it first. From then on all are sequences like any other.

A step may be scheduled while others are in flight. Their tokens count as known to the shards (`num_pending`); a
sequence whose length they will reach is left out. One that ends otherwise, or gives up its slot, has then computed a
token too many: it leaves the steps in flight with its slot, and their answers pass it by. That token spoils no block
that others can find, because the K and V of a token are written when the next is sampled: they are an accepted token's,
or lie behind all of those.

Beginnings that are known are not computed again: see `Prefixes`. Decodes may guess tokens, and yield several in a
step: see `Speculation`.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterator
from operator import attrgetter

from peregrine_router.request import FinishReason, Request
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.draft_budget import Speculation, num_missing, writes_to_shared
from peregrine_router.scheduling.fair_queue import FairQueue
from peregrine_router.scheduling.in_flight import Committed, InFlight, sampled_tokens
from peregrine_router.scheduling.prefix_matching import Prefixes
from peregrine_router.scheduling.sequence import Sequence, overtakes
from peregrine_router.scheduling.step_builder import Draft
from peregrine_router.scheduling.step_limits import Shares, Sharing
from peregrine_server.protocol import Step, StepResult

_due = attrgetter("due")


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
        speculation: Speculation | None = None,
    ) -> None:
        """`max_step_tokens` is the token budget of a step; decodes may exceed it only if there are more of them."""
        self.max_mixed_tokens = max_step_tokens
        """The budget of a step with decodes in it, which wait for all of it. May be changed at any time."""
        self.pool = pool
        self.max_step_tokens = max_step_tokens
        self.waiting: FairQueue[Sequence] = FairQueue()
        self.sharing = Sharing(self.waiting, max_batch_size, lead=max_step_tokens)
        self.running: list[Sequence] = []
        """In order of admission."""
        self.num_preemptions = 0
        self.speculation = speculation or Speculation(0, 0)
        self.prefixes = Prefixes(pool, is_on=caches_prefixes)
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
        for leader in self.waiting:
            yield leader
            yield from leader.followers

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
            leader, *followers = sequences[start : start + self._max_batch_size]
            leader.lead(followers)
            self.waiting.append(leader, self.prefixes.num_to_compute(leader))
        return sequences

    def cancel(self, sequence: Sequence) -> None:
        """The client left: blocks and slot are free from the next step on. No effect on a sequence that is done."""
        if not sequence.is_done:
            sequence.is_cancelled = True
            self._leave(sequence)

    def finish(self, sequence: Sequence, reason: FinishReason, num_generated: int | None = None) -> None:
        """The sequence ends with the tokens that it has, or the first of them: those of one answer may be too many, and
        have ended it already."""
        if num_generated is not None:
            del sequence.token_ids[len(sequence.request.prompt_ids) + num_generated :]
        if not sequence.is_done:
            self._leave(sequence)
        sequence.finish_reason = reason

    def schedule(self) -> Step | None:
        """The next step, or None if nothing can run."""
        assert len(self._in_flight) < 2 or not any(each.speculate for each in self._in_flight), "see `Speculation`"
        while not (draft := self._draft()).scheduled:
            if not draft.num_preempted:
                return None
        return self._seal(draft)

    def _draft(self) -> Draft:
        """What the next step computes. Nothing, perhaps, though others can go on, if all of it had to give way."""
        num_preemptions = self.num_preemptions
        self._make_way()
        draft = Draft(self.max_step_tokens)
        begun = self._begun()
        shares = self.sharing.shares(self.running, begun, self._has_room, self.max_mixed_tokens)
        self._schedule_decodes(draft, shares)
        draft.budget = shares.room(draft.num_decodes, draft.budget)
        self._schedule_prompts(draft, begun, shares.held)
        self._fork(draft)
        draft.num_preempted = self.num_preemptions - num_preemptions
        return draft

    def heartbeat(self) -> Step:
        """A step without work: its answer shows that the shards are there."""
        return self._seal(Draft(0))

    def in_flight(self, at: int = 0) -> dict[int, Sequence]:
        """By slot, the sequences of a step in flight, the oldest by default, that still want its answer."""
        return self._in_flight[at].sequences

    def commit(self, result: StepResult) -> list[Committed]:
        """Appends the sampled tokens of the oldest step in flight; marks what reached its length or an end token.

        Raises ValueError if the answer is not that step's.
        """
        step = self._in_flight[0]
        if result.id != step.id:
            raise ValueError(f"the shards answered step {result.id}, step {step.id} was due")
        tokens = sampled_tokens(result)
        if step.speculate:
            slots = [slot for slot, *_ in tokens]
            self.speculation.settle(step.sequences, slots, step.speculate, result.num_guessed)
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
        followers = [f for s in (*self.running, *self.waiting) for f in s.followers]
        assert all(f.slot == -1 and not f.blocks and not f.num_generated for f in followers), "a follower runs"
        assert not any(s.is_done for s in (*self.running, *self.waiting, *followers)), "a finished one is still queued"
        assert not any(s.followers and s.num_generated for s in self.running), "a leader left its followers behind"
        assert self._num_reserved() <= len(self._free_slots), "a follower's slot was given away"
        for sequence in self.running:
            sequence.check_integrity(self.pool.block_size)
            assert sequence.num_extra == 0 or self._in_flight, "guesses of no step in flight"

    def _begun(self) -> list[Sequence]:
        """Whose prompts are being computed, in blocks that were all taken on admission; the first that is due first."""
        return sorted([s for s in self.running if len(s.token_ids) - s.num_computed > 1], key=_due)

    def _schedule_decodes(self, draft: Draft, shares: Shares) -> None:
        # As `num_known`, which is asked of every sequence in every step.
        decodes = [s for s in self.running if s.num_computed + 1 == len(s.token_ids) + s.num_pending < s.max_total]
        decodes = self.sharing.decodes(decodes, shares) if shares.brief or shares.held else decodes
        if not (self.waiting and self.num_free_slots > 0):
            draft.speculate = self.speculation.num_guesses(self._next_step_id, decodes, self.running, self.pool)
        for sequence in decodes:
            if sequence.num_computed < sequence.num_writable and draft.speculate == sequence.num_extra == 0:
                draft.scheduled.append(sequence)
            # Else it may have been preempted for an older sequence of this very loop.
            elif sequence.slot >= 0 and (blocks := self._grow(sequence, draft.speculate)) is not None:
                self._add_decode(draft, sequence, blocks)
        draft.close_decodes()

    def _grow(self, sequence: Sequence, num_guesses: int) -> list[int] | None:
        """The blocks for one more token and guesses, at the cost of the newest; None if `sequence` itself had to go."""
        while (blocks := self.pool.allocate(num_missing(self.pool, sequence, num_guesses))) is None:
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

    def _make_way(self) -> None:
        """Preempts for the next request if its tenant runs nothing: others must not keep it out by being many."""
        if (sequence := self.waiting.peek()) is None:
            return
        if any(running.request.tenant == sequence.request.tenant for running in self.running):
            return
        while not self._has_room(sequence) and (victim := self._newest_of_several(self.running)) is not None:
            self._preempt(victim)

    def _add_decode(self, draft: Draft, sequence: Sequence, blocks: list[int]) -> None:
        if blocks and writes_to_shared(self.pool, sequence):
            copy, *blocks = blocks
            draft.copies.append((len(draft.scheduled), copy))
            self.pool.free([sequence.blocks.pop()])
            sequence.blocks.append(copy)
        sequence.blocks += blocks
        sequence.num_writable = len(sequence.blocks) * self.pool.block_size
        draft.give_blocks(blocks)
        draft.scheduled.append(sequence)

    def _schedule_prompts(self, draft: Draft, begun: list[Sequence], held: Collection[str]) -> None:
        left, is_open = deque(s for s in begun if s.slot >= 0 and s.request.tenant not in held), True
        while draft.budget > 0:
            newcomer = self.waiting.peek(held) if is_open else None
            if newcomer is not None and (not left or overtakes(newcomer, left[0], self.running)):
                is_open = self._admit(draft, newcomer, held)
            elif left:
                self._continue(draft, left.popleft())
            else:
                break

    def _admit(self, draft: Draft, sequence: Sequence, held: Collection[str]) -> bool:
        """Begins with the next that waits. False if there is no room for it."""
        if not self._has_room(sequence):
            return False
        self.waiting.popleft(held)
        self._begin(draft, sequence, self.prefixes.reuse(sequence))
        return True

    def _continue(self, draft: Draft, sequence: Sequence) -> None:
        """The next chunk. If another has computed it meanwhile, all over again: what is in the cache takes no time."""
        if self.prefixes.is_overtaken(sequence):
            # Before it gives up its own blocks, which the cache may then forget.
            cached = self.prefixes.reuse(sequence)
            self._release(sequence)
            self._begin(draft, sequence, cached)
        else:
            self._add_chunk(draft, sequence, [])

    def _begin(self, draft: Draft, sequence: Sequence, cached: list[int]) -> None:
        """Takes a slot, and blocks for all of its tokens, the first of them cached: those count as computed."""
        fresh = self.pool.allocate(self.pool.num_blocks_for(len(sequence.token_ids)) - len(cached))
        assert fresh is not None, "there is no room for it"
        sequence.slot, sequence.blocks = self._free_slots.pop(), cached + fresh
        sequence.num_remembered = len(cached)
        sequence.num_computed = len(cached) * self.pool.block_size
        self.prefixes.note_admitted(sequence)
        self.running.append(sequence)
        draft.new.append(sequence)
        self._add_chunk(draft, sequence, sequence.blocks)

    def _add_chunk(self, draft: Draft, sequence: Sequence, new_blocks: list[int]) -> None:
        """As much of its tokens as the budget allows. Who is admitted next finds the blocks that this fills."""
        count = min(len(sequence.token_ids) - sequence.num_computed, draft.budget)
        draft.add(sequence, count, new_blocks)
        self.prefixes.remember(sequence, count)

    def _has_room(self, sequence: Sequence) -> bool:
        """Whether there are slots for it and its followers, and blocks for what of it is not in the cache."""
        reserved = self._num_reserved() + len(sequence.followers)
        if reserved >= len(self._free_slots):
            return False
        cached = self.prefixes.reuse(sequence)
        missing = self.pool.num_blocks_for(len(sequence.token_ids)) - len(cached)
        # One block of headroom a running sequence, or the newcomer would be preempted as soon as they grow.
        headroom = len(self.running) + reserved if self.running else 0
        # With its cached blocks taken: idle ones no longer count as free.
        has_room = missing + headroom <= self.pool.num_free
        self.pool.free(cached)
        return has_room

    def _num_reserved(self) -> int:
        """Free slots that wait for the forks of running leaders."""
        return sum(len(sequence.followers) for sequence in self.running)

    def _fork(self, draft: Draft) -> None:
        """The followers of every prompt that this step completes."""
        leaders = [pair for pair in zip(draft.scheduled, draft.num_tokens, strict=True) if pair[0].followers]
        for leader, num_tokens in leaders:
            if leader.num_computed + num_tokens < len(leader.token_ids):
                continue
            for fork in leader.followers:
                self.pool.share(leader.blocks)
                fork.leader, fork.slot, fork.blocks = None, self._free_slots.pop(), list(leader.blocks)
                fork.num_computed = len(leader.token_ids)
                fork.num_remembered, fork.block_hashes = leader.num_remembered, list(leader.block_hashes)
                self.running.append(fork)
                draft.forks.append((fork, leader))
            leader.followers, leader.num_writable = [], 0

    def _seal(self, draft: Draft) -> Step:
        if draft.speculate:
            draft.guess_cost = self.speculation.cost.of(draft.num_decodes)
        step, block_size = draft.message(self._next_step_id, self._freed), self.pool.block_size
        for sequence, num_tokens in zip(draft.scheduled, draft.num_tokens, strict=True):
            sequence.num_computed += num_tokens
        running = draft.scheduled + [fork for fork, _ in draft.forks]
        for sequence in running:
            sequence.num_pending += sequence.num_computed == len(sequence.token_ids) + sequence.num_pending
            sequence.num_extra += step.speculate
            if sequence.num_computed // block_size > sequence.num_remembered:
                self.prefixes.remember(sequence)
        self._in_flight.append(InFlight(step.id, {s.slot: s for s in running}, step.speculate))
        self._next_step_id += 1
        self._freed = []
        return step

    def _commit(self, sequence: Sequence, row: int, token_id: int, logprob: float | None) -> Committed:
        sequence.token_ids.append(token_id)
        sequence.num_pending -= 1
        reason = sequence.reason_to_end(token_id, self._eos_token_ids)
        if reason is not None:
            self.finish(sequence, reason)
        logprob = logprob if sequence.request.sampling.logprobs else None
        index = len(sequence.token_ids) - len(sequence.request.prompt_ids)
        return Committed(sequence, row, index, token_id, logprob, reason)

    def _preempt(self, sequence: Sequence) -> None:
        self._release(sequence)
        self.waiting.appendleft(sequence)
        self.num_preemptions += 1

    def _leave(self, sequence: Sequence) -> None:
        """Out of its queue or slot. The first follower of one that leads takes its place at the head of the queue."""
        if sequence.leader is not None:
            sequence.leader.followers.remove(sequence)
            sequence.leader = None
        elif sequence.slot >= 0:
            self._release(sequence)
            for heir in sequence.heirs():
                self.waiting.appendleft(heir)
        elif sequence in self.waiting:
            heirs = sequence.heirs()
            if heirs:
                self.waiting.replace(sequence, heirs[0])
            else:
                self.waiting.remove(sequence)

    def _release(self, sequence: Sequence) -> None:
        self.prefixes.remember(sequence)
        self.running.remove(sequence)
        for step in self._in_flight:
            step.sequences.pop(sequence.slot, None)
        self.pool.free(sequence.blocks)
        self._freed.append(sequence.slot)
        self._free_slots.append(sequence.slot)
        sequence.slot, sequence.blocks = -1, []
        sequence.num_computed = sequence.num_pending = sequence.num_extra = 0
        sequence.num_remembered = sequence.num_writable = 0
