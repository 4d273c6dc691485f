"""The scheduler under sequences of events that hypothesis makes up, and its promises."""

from collections import deque
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fake_shards import FakeModel, expected, submit
from peregrine_router.request import FinishReason
from peregrine_router.scheduling.draft_budget import DraftBudget
from peregrine_router.scheduling.sequence import Sequence
from peregrine_server.protocol import Step, StepResult, encode, unpack
from schedulers import BLOCK_SIZE, NUM_BLOCKS, generated, make_group, make_request, make_scheduler, run_step, run_to_end


def prompts() -> st.SearchStrategy[list[int]]:
    """Prompts of up to 24 tokens, most of which share a prefix with others."""
    begins = st.builds(lambda base, length: [base] * length, st.integers(0, 1), st.integers(0, 18))
    return st.builds(list.__add__, begins, st.lists(st.integers(0, 250), min_size=1, max_size=6))


class Histories(RuleBasedStateMachine):
    """Any order of submissions, groups, cancellations, stop strings and steps, in a cache far too small for them.

    Up to two steps are in flight: executed, as shards do in the order sent, but their results are not back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.model = FakeModel(NUM_BLOCKS, BLOCK_SIZE)
        self.sequences: list[Sequence] = []
        self.results: deque[StepResult] = deque()

    @initialize(seed=st.integers(0, 1000), most=st.sampled_from([0, 1, 3, 7, 16]), rows=st.integers(2, 20))
    def start(self, seed: int, most: int, rows: int) -> None:
        self.model.random = Random(seed)
        # With a chunk of 3 the short steps of a flood leave answers out.
        speculation = DraftBudget(most, rows)
        self.scheduler = make_scheduler(max_batch_size=5, max_step_tokens=9, speculation=speculation, min_chunk=3)

    @rule(prompt=prompts(), new=st.integers(1, 24), salt=st.sampled_from([b"", b"other"]))
    def submit(self, prompt: list[int], new: int, salt: bytes) -> None:
        request = make_request(str(len(self.sequences)), prompt, new, salt=salt, tenant=salt.decode())
        self.sequences.append(submit(self.scheduler, request))

    @rule(prompt=prompts(), new=st.lists(st.integers(1, 24), min_size=2), salt=st.sampled_from([b"", b"other"]))
    def submit_a_group(self, prompt: list[int], new: list[int], salt: bytes) -> None:
        self.sequences += self.scheduler.submit_group(make_group(prompt, new[:7], salt))

    @rule(count=st.integers(1, 12))
    def step(self, count: int) -> None:
        self.receive_all()
        for _ in range(count):
            run_step(self.scheduler, self.model)

    @rule(count=st.integers(1, 12))
    def overlap_steps(self, count: int) -> None:
        for _ in range(count):
            if len(self.results) == 2:
                self.receive()
            self.send()

    @precondition(lambda self: len(self.results) < 2)
    @rule()
    def send(self) -> None:
        if (step := self.scheduler.schedule()) is not None:
            self.results.append(self.model.execute(step))
            self.check_newcomers(step)

    def check_newcomers(self, step: Step) -> None:
        """No sequence begins to compute a block that a prompt before its own fills, in this step or before."""
        decodes = set(unpack(step.slots)[: step.num_decodes].tolist())
        cached = {new.slot: new.num_cached // BLOCK_SIZE for new in step.new}
        running = [s for s in self.scheduler.running if s.slot not in decodes]
        for number, sequence in enumerate(running):
            at = cached.get(sequence.slot, -1)
            if 0 <= at < (len(sequence.request.prompt_ids) - 1) // BLOCK_SIZE and not sequence.num_generated:
                (hash,) = sequence.hashes(BLOCK_SIZE, at, at + 1)
                assert not any(hash in other.block_hashes[: other.num_cached_blocks] for other in running[:number])

    @precondition(lambda self: self.results)
    @rule()
    def receive(self) -> None:
        self.scheduler.commit(self.results.popleft())

    def receive_all(self) -> None:
        while self.results:
            self.receive()

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.scheduler.cancel(data.draw(st.sampled_from(self.sequences)))

    @precondition(lambda self: self.scheduler.running)
    @rule(data=st.data())
    def match_a_stop_string(self, data: st.DataObject) -> None:
        self.scheduler.finish(data.draw(st.sampled_from(self.scheduler.running)), FinishReason.STOP_SEQUENCE)

    @invariant()
    def holds_together(self) -> None:
        self.scheduler.check_integrity()
        for sequence in self.sequences:
            tokens, request = generated(sequence), sequence.request
            assert tokens == expected(request.prompt_ids, len(tokens), request.sampling.seed)

    @invariant()
    def finds_what_it_cached(self) -> None:
        ends = {
            hash: sequence.token_ids[at * BLOCK_SIZE : (at + 1) * BLOCK_SIZE]
            for sequence in self.sequences
            for at, hash in enumerate(sequence.block_hashes)
        }
        for block, (hash, _) in self.scheduler.pool._cache._key_of.items():
            assert self.model.cache[block] == ends[hash]

    def teardown(self) -> None:
        self.receive_all()
        run_to_end(self.scheduler, self.model)
        assert self.scheduler.pool.num_used == 0
        assert all(s.is_done for s in self.sequences)
        lengths = [s for s in self.sequences if s.finish_reason is FinishReason.LENGTH]
        assert all(len(generated(s)) == s.request.max_new_tokens for s in lengths)


Histories.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestHistories = pytest.mark.slow(Histories.TestCase)
"""Invariants hold after every event, every request ends with its own tokens, and every block comes back."""


def test_the_oldest_is_never_preempted() -> None:
    """However many arrive after it, the first request finishes as soon as it would alone."""
    scheduler, model = make_scheduler(num_blocks=6), FakeModel(6, BLOCK_SIZE)
    first = submit(scheduler, make_request("first", [1], 20))
    for i in range(4):
        submit(scheduler, make_request(str(i), [i] * 6, 12))
    steps = 0
    while not first.is_done:
        run_step(scheduler, model)
        steps += 1
    assert steps == 20


def test_a_request_that_never_fits_is_refused() -> None:
    """A request larger than the whole cache is refused on submission, not queued for ever."""
    scheduler = make_scheduler()
    with pytest.raises(ValueError, match="never fit"):
        submit(scheduler, make_request("a", [1] * 40, 9))


def test_the_same_history_makes_the_same_decisions() -> None:
    """The scheduler is deterministic: two runs of one history send the same bytes."""

    def history() -> list[bytes]:
        scheduler, model = make_scheduler(num_blocks=6), FakeModel(6, BLOCK_SIZE)
        for i in range(5):
            submit(scheduler, make_request(str(i), [i] * 5, 14))
        sent = []
        while (step := run_step(scheduler, model)) is not None:
            sent.append(encode(step))
        return sent

    assert history() == history()
