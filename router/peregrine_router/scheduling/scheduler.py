"""Continuous batching: which tokens the next step computes. Pure decisions: no torch, no I/O, no clock.

A step has a token budget, which is smaller if it also decodes. Decodes take one token each and come first
(`decode_scheduling`); what is left goes to chunks of prompts (`prefill_scheduling`). Who is next, how far a tenant is
throttled and who is preempted is up to the policy (`policy`).

When a running sequence needs a block and none is free, a newer one is preempted: it gives up its blocks and waits at
the head of its tenant's queue to be recomputed. The oldest of all always advances, so every request ends.

Requests of one prompt form a group. Its prompt owner computes the prompt; in the step that completes it the siblings
fork: they share its blocks, and each samples its own next token. A sequence copies a block that others share before it
writes to it. From then on all are sequences like any other.

A step may be scheduled while others are in flight. Their tokens count as known to the shards (`num_pending`); a
sequence that they bring to its maximum length is left out. One that ends otherwise, or is preempted, has then computed
a token too many: it leaves the steps in flight with its slot, and their results skip it. That token spoils no block
that others can find, because the K and V of a token are written when the next is sampled: they are an accepted token's,
or lie behind all of those.

Cached prefixes are not computed again: see `PrefixMatcher`. Speculation gains several tokens in a step: see
`DraftBudget`.
"""

from collections.abc import Iterator

from peregrine_router.request import FinishReason, InvalidRequest, Request
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.decode_scheduling import DecodeScheduler
from peregrine_router.scheduling.draft_budget import DraftBudget
from peregrine_router.scheduling.in_flight import NewToken, StepInFlight, sampled_tokens
from peregrine_router.scheduling.policy import Policy
from peregrine_router.scheduling.preemption import Preemption
from peregrine_router.scheduling.prefill_scheduling import PrefillScheduler
from peregrine_router.scheduling.prefix_matching import PrefixMatcher
from peregrine_router.scheduling.running_batch import RunningBatch
from peregrine_router.scheduling.sequence import Sequence, prompt_key
from peregrine_router.scheduling.step_builder import StepBuilder
from peregrine_router.scheduling.step_limits import StepBudget
from peregrine_router.scheduling.step_totals import StepTotals
from peregrine_server.protocol import Step, StepResult


class Scheduler:
    """The state machine: submit_group / cancel / finish change it, `schedule` makes a step, `commit` takes its result.

    Reads no clock: what changes from step to step comes with `schedule`.
    """

    def __init__(
        self,
        pool: BlockPool,
        policy: Policy,
        *,
        max_batch_size: int,
        max_step_tokens: int,
        eos_token_ids: frozenset[int],
        caches_prefixes: bool = True,
        can_fork: bool = True,
        speculation: DraftBudget | None = None,
    ) -> None:
        """`max_step_tokens`: the token budget of a step for which `schedule` is given no other.

        A model's cache may rule out `caches_prefixes`, `speculation`, and `can_fork`: whether a sequence can start from
        what another has computed up to any token. Without it each request of a group computes the prompt itself.
        """
        self.pool = pool
        self.max_step_tokens = max_step_tokens
        self.waiting = policy.waiting
        self.speculation = speculation or DraftBudget(0, 0)
        self.prefixes = PrefixMatcher(pool, is_on=caches_prefixes)
        self.totals = StepTotals()
        self.num_generated = 0
        """Tokens generated so far."""
        self._policy = policy
        self._eos_token_ids = eos_token_ids
        self._max_group_size = max_batch_size if can_fork else 1
        """Requests that one sequence computes a prompt for: more than can run at once would never all get slots."""
        self._batch = RunningBatch(pool, self.prefixes, max_batch_size)
        self.running = self._batch.sequences
        """The sequences that have slots, in order of admission."""
        self.in_flight = self._batch.in_flight
        """The steps whose results are not back, the oldest first: `schedule` appends to it, `commit` takes from it."""
        self._preemption = Preemption(self._batch, policy)
        self._decodes = DecodeScheduler(self._batch, policy, self._preemption, self.speculation)
        self._prefills = PrefillScheduler(self._batch, policy)
        self._next_step_id = 0

    @property
    def num_preemptions(self) -> int:
        """Preemptions so far."""
        return self._preemption.count

    @property
    def num_waiting(self) -> int:
        """Requests that no step has worked on, or that were preempted."""
        return sum(1 for _ in self.waiting_sequences())

    @property
    def num_free_slots(self) -> int:
        """Sequences that could be admitted beside the running ones."""
        return self._batch.num_free_slots

    def waiting_sequences(self) -> Iterator[Sequence]:
        """The sequences that `num_waiting` counts, in no particular order."""
        for prompt_owner in self.waiting:
            yield prompt_owner
            yield from prompt_owner.siblings

    def submit_group(self, requests: list[Request]) -> list[Sequence]:
        """Queues requests of one prompt, which is computed once if sequences can fork. Raises InvalidRequest if one
        could never fit the cache."""
        assert len(set(map(prompt_key, requests))) == 1, "a group has one prompt"
        total = max(len(request.prompt_ids) + request.max_new_tokens for request in requests)
        if self.pool.num_blocks_for(total) > self.pool.num_blocks:
            raise InvalidRequest(f"{total} tokens never fit {self.pool.num_blocks} blocks of {self.pool.block_size}")
        sequences = [Sequence(request, list(request.prompt_ids)) for request in requests]
        for start in range(0, len(sequences), self._max_group_size):
            prompt_owner, *siblings = sequences[start : start + self._max_group_size]
            prompt_owner.adopt_siblings(siblings)
            self.waiting.append(prompt_owner, self.prefixes.num_to_compute(prompt_owner))
        return sequences

    def cancel(self, sequence: Sequence) -> None:
        """Ends a sequence whose client left: blocks and slot are free from the next step on. No effect on a sequence
        that is done."""
        if not sequence.is_done:
            sequence.is_cancelled = True
            self._remove(sequence)

    def finish(self, sequence: Sequence, reason: FinishReason, num_generated: int | None = None) -> None:
        """Ends a sequence with the tokens that it has, or with the first `num_generated` of them: the last step may
        have gained too many, and have ended it already."""
        if num_generated is not None:
            del sequence.token_ids[len(sequence.request.prompt_ids) + num_generated :]
        if not sequence.is_done:
            self._remove(sequence)
        sequence.finish_reason = reason

    def schedule(self, budget: StepBudget | None = None) -> Step | None:
        """The next step, or None if nothing can run. `budget`: its size; by default `max_step_tokens`, whatever is in
        the step."""
        in_flight = self.in_flight
        assert len(in_flight) < 2 or not any(each.step.max_draft_tokens for each in in_flight), "see `DraftBudget`"
        budget = budget or StepBudget(self.max_step_tokens, self.max_step_tokens)
        while True:
            num_preemptions = self._preemption.count
            builder = self._build_step(budget)
            if builder.scheduled:
                return self._emit_step(builder)
            # Where all of a step's sequences were preempted, others can run.
            if self._preemption.count == num_preemptions:
                return None

    def heartbeat(self) -> Step:
        """A step without work: its result shows that the shards live."""
        return self._emit_step(StepBuilder(self._next_step_id, 0))

    def commit(self, result: StepResult) -> list[NewToken]:
        """Appends the sampled tokens of the oldest step in flight, and ends sequences at their maximum length or an
        end token.

        Raises ValueError if the result is not that step's.
        """
        oldest = self.in_flight[0]
        step, running = oldest.step, oldest.sequences
        if result.id != step.id:
            raise ValueError(f"the shards answered step {result.id}, step {step.id} was due")
        tokens = sampled_tokens(result)
        if step.max_draft_tokens:
            slots = [slot for slot, *_ in tokens]
            self.speculation.settle(running, slots, step.max_draft_tokens, result.num_draft_tokens)
        # A sequence that ends leaves the step: tokens behind its last are not its own.
        new_tokens = [
            self._commit(sequence, row, token_id, logprob)
            for slot, row, token_id, logprob in tokens
            if (sequence := running.get(slot)) is not None
        ]
        self.in_flight.popleft()
        self.num_generated += len(new_tokens)
        self.waiting.charge_outputs([each.sequence.request.tenant for each in new_tokens])
        return new_tokens

    def check_integrity(self) -> None:
        """Raises AssertionError unless blocks, slots and queues agree."""
        self.waiting.check_integrity()
        self._batch.check_integrity()
        assert all(not s.blocks and s.slot == -1 for s in self.waiting), "a waiting sequence holds blocks or a slot"
        siblings = [f for s in (*self.running, *self.waiting) for f in s.siblings]
        assert all(f.slot == -1 and not f.blocks and not f.num_generated for f in siblings), "a sibling runs"
        assert not any(s.is_done for s in (*self.running, *self.waiting, *siblings)), "a finished one is still queued"

    def _build_step(self, budget: StepBudget) -> StepBuilder:
        """Decides what the next step computes: nothing, perhaps, if all of its sequences were preempted."""
        self._preemption.make_room_for_next()
        builder = StepBuilder(self._next_step_id, budget.max_tokens)
        prefilling = self._prefills.prefilling()
        limits = self._policy.limits(self.running, prefilling, self._batch.has_room, budget)
        self._decodes.schedule(builder, limits)
        builder.budget = limits.room(builder.num_decodes, builder.budget)
        self._prefills.schedule(builder, prefilling, limits.paused_tenants)
        return builder

    def _emit_step(self, builder: StepBuilder) -> Step:
        """The step's message; what it computes counts as computed from here on."""
        if builder.max_draft_tokens:
            builder.draft_cost = self.speculation.cost.predict(builder.num_decodes)
        step, block_size = builder.message(self._batch.take_freed_slots()), self.pool.block_size
        for sequence, num_tokens in zip(builder.scheduled, builder.num_tokens, strict=True):
            sequence.num_computed += num_tokens
        running = builder.scheduled + [fork for fork, _ in builder.forks]
        sampled = []
        for sequence in running:
            if sequence.num_computed == len(sequence.token_ids) + sequence.num_pending:
                sequence.num_pending += 1
                sampled.append(sequence.slot)
            sequence.num_draft_in_flight += step.max_draft_tokens
            if sequence.num_computed // block_size > sequence.num_cached_blocks:
                self.prefixes.cache_blocks(sequence)
        if builder.scheduled:
            self.totals.add(builder)
        sequences = {sequence.slot: sequence for sequence in running}
        self.in_flight.append(StepInFlight(step, sequences, frozenset(sampled)))
        self._next_step_id += 1
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

    def _remove(self, sequence: Sequence) -> None:
        """Takes a sequence out of its queue, slot or group. Its first sibling replaces a prompt owner, at the head of
        its tenant's queue if the owner ran."""
        if sequence.prompt_owner is not None:
            sequence.prompt_owner.siblings.remove(sequence)
            sequence.prompt_owner = None
        elif sequence.slot >= 0:
            self._batch.release(sequence)
            if (sibling := sequence.promote_sibling()) is not None:
                self.waiting.appendleft(sibling)
        elif sequence in self.waiting:
            if (sibling := sequence.promote_sibling()) is not None:
                self.waiting.replace(sequence, sibling)
            else:
                self.waiting.remove(sequence)
