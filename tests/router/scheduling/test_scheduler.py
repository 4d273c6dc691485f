"""The scheduler and the block pool, under histories that hypothesis makes up."""

from collections import deque
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fake_shards import FakeModel, expected, next_token, submit
from peregrine_router.request import FinishReason, Request, SamplingParams
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.draft_budget import DraftBudget
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.scheduling.sequence import Sequence
from peregrine_router.scheduling.step_limits import MIN_CHUNK, StepBudget
from peregrine_server.protocol import Grammar, Step, StepResult, encode, unpack

NUM_BLOCKS = 12
BLOCK_SIZE = 4


def make_request(
    name: str, prompt: list[int], max_new_tokens: int, seed: int = 0, salt: bytes = b"", tenant: str = ""
) -> Request:
    return Request(name, tuple(prompt), SamplingParams(seed=seed), max_new_tokens, tenant=tenant, cache_salt=salt)


def make_group(prompt: list[int], max_new_tokens: list[int], salt: bytes = b"") -> list[Request]:
    """One prompt, a seed of its own for each."""
    return [make_request(f"{prompt}-{i}", prompt, new, seed=i, salt=salt) for i, new in enumerate(max_new_tokens)]


def make_scheduler(
    num_blocks: int = NUM_BLOCKS,
    max_batch_size: int = 8,
    max_step_tokens: int = 16,
    eos: frozenset[int] = frozenset(),
    speculation: DraftBudget | None = None,
    min_chunk: int = MIN_CHUNK,
    can_fork: bool = True,
) -> Scheduler:
    pool = BlockPool(num_blocks, BLOCK_SIZE, tenant_fraction=0.5)
    return Scheduler(
        pool,
        FairPolicy(max_batch_size, lead=max_step_tokens, min_chunk=min_chunk),
        max_batch_size=max_batch_size,
        max_step_tokens=max_step_tokens,
        eos_token_ids=eos,
        speculation=speculation,
        can_fork=can_fork,
    )


def run_step(scheduler: Scheduler, model: FakeModel, max_mixed_tokens: int | None = None) -> Step | None:
    most = scheduler.max_step_tokens
    step = scheduler.schedule(StepBudget(most, max_mixed_tokens or most))
    if step is not None:
        scheduler.commit(model.execute(step))
    return step


def run_to_end(scheduler: Scheduler, model: FakeModel) -> None:
    for _ in range(10_000):
        if run_step(scheduler, model) is None:
            return
        scheduler.check_integrity()
    raise AssertionError("it never ends")


def generated(sequence: Sequence) -> list[int]:
    return sequence.token_ids[len(sequence.request.prompt_ids) :]


def prompts() -> st.SearchStrategy[list[int]]:
    """Up to 24 tokens, most of which begin as one of two others do."""
    begins = st.builds(lambda base, length: [base] * length, st.integers(0, 1), st.integers(0, 18))
    return st.builds(list.__add__, begins, st.lists(st.integers(0, 250), min_size=1, max_size=6))


class Histories(RuleBasedStateMachine):
    """Any order of submissions, groups, cancellations, stop strings and steps, in a cache far too small for them.

    Up to two steps are in flight: executed, as shards do in the order sent, but their answers are not back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.model = FakeModel(NUM_BLOCKS, BLOCK_SIZE)
        self.sequences: list[Sequence] = []
        self.answers: deque[StepResult] = deque()

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
            if len(self.answers) == 2:
                self.receive()
            self.send()

    @precondition(lambda self: len(self.answers) < 2)
    @rule()
    def send(self) -> None:
        if (step := self.scheduler.schedule()) is not None:
            self.answers.append(self.model.execute(step))
            self.check_newcomers(step)

    def check_newcomers(self, step: Step) -> None:
        """Nobody begins to compute a block that a prompt before its own fills, in this step or before."""
        decodes = set(unpack(step.slots)[: step.num_decodes].tolist())
        cached = {new.slot: new.num_cached // BLOCK_SIZE for new in step.new}
        running = [s for s in self.scheduler.running if s.slot not in decodes]
        for number, sequence in enumerate(running):
            at = cached.get(sequence.slot, -1)
            if 0 <= at < (len(sequence.request.prompt_ids) - 1) // BLOCK_SIZE and not sequence.num_generated:
                (hash,) = sequence.hashes(BLOCK_SIZE, at, at + 1)
                assert not any(hash in other.block_hashes[: other.num_cached_blocks] for other in running[:number])

    @precondition(lambda self: self.answers)
    @rule()
    def receive(self) -> None:
        self.scheduler.commit(self.answers.popleft())

    def receive_all(self) -> None:
        while self.answers:
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
    def finds_what_it_remembers(self) -> None:
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


@pytest.mark.slow
class TestHistories(Histories.TestCase):
    """Invariants hold after every event, every request ends with its own tokens, and every block comes back."""


def test_a_step_whose_sequences_all_gave_way_is_made_of_others() -> None:
    """Of a flood's five answers two take part; both, forks that share every block, are preempted, and free none. The
    next step is there at once, not after the heartbeat that follows where nothing can run."""
    scheduler = make_scheduler(num_blocks=10, max_batch_size=5, max_step_tokens=9, min_chunk=3)
    model = FakeModel(10, BLOCK_SIZE)
    sequences = [submit(scheduler, make_request("another", [9], 1, tenant="other"))]
    run_step(scheduler, model)
    sequences += scheduler.submit_group(make_group([1] * 5, [10, 10]))
    for _ in range(2):
        run_step(scheduler, model)
    sequences += scheduler.submit_group(make_group([2] * 12, [10, 10, 10]))
    run_to_end(scheduler, model)
    assert scheduler.num_preemptions > 0
    assert all(sequence.is_done for sequence in sequences)


@given(st.lists(st.tuples(st.sampled_from(["allocate", "share", "free"]), st.integers(0, 5)), max_size=60))
def test_block_pool_keeps_account_of_every_block(history: list[tuple[str, int]]) -> None:
    """Whatever is allocated, shared and freed, each block is free or has as many owners as tables that name it."""
    pool, tables = BlockPool(16, BLOCK_SIZE), []
    for action, count in history:
        if action == "allocate":
            blocks = pool.allocate(count)
            assert (blocks is None) == (count > 16 - len({block for table in tables for block in table}))
            tables += [] if blocks is None else [blocks]
        elif tables and action == "share":
            pool.share(tables[count % len(tables)])
            tables.append(list(tables[count % len(tables)]))
        elif tables:
            pool.free(tables.pop(count % len(tables)))
        pool.check_integrity(tables)


def test_block_pool_refuses_a_second_free() -> None:
    """Freeing a block twice is an error at once, not two owners later."""
    pool = BlockPool(4, BLOCK_SIZE)
    blocks = pool.allocate(2)
    assert blocks is not None
    pool.free(blocks)
    with pytest.raises(ValueError, match="freed twice"):
        pool.free(blocks[:1])


def test_block_pool_refuses_to_share_a_free_block() -> None:
    """A block that nobody owns has no tokens to share."""
    with pytest.raises(ValueError, match="is free"):
        BlockPool(4, BLOCK_SIZE).share([0])


@pytest.mark.parametrize("length", [1, 7, 8, 9])
def test_a_group_computes_its_prompt_once(length: int) -> None:
    """Four requests of one prompt take its tokens once, in chunks, and then one each a step; each its own seed's."""
    scheduler, model = make_scheduler(num_blocks=32, max_step_tokens=5), FakeModel(32, BLOCK_SIZE)
    prompt = list(range(length))
    group = scheduler.submit_group(make_group(prompt, [6] * 4))
    run_to_end(scheduler, model)
    assert sum(model.step_tokens) == length + 4 * 5
    assert [generated(s) for s in group] == [expected(prompt, 6, seed) for seed in range(4)]
    assert scheduler.pool.num_used == 0


@pytest.mark.parametrize("can_fork", [True, False])
def test_a_group_gives_the_tokens_of_single_requests(can_fork: bool) -> None:
    """Whether sequences can fork or not; where they cannot, each request computes what of its prompt is not cached."""
    scheduler, model = make_scheduler(num_blocks=32, can_fork=can_fork), FakeModel(32, BLOCK_SIZE)
    prompt, forks = list(range(10)), 0
    group = scheduler.submit_group(make_group(prompt, [6] * 4))
    while (step := run_step(scheduler, model)) is not None:
        scheduler.check_integrity()
        forks += len(step.forks)
    assert [generated(s) for s in group] == [expected(prompt, 6, seed) for seed in range(4)]
    assert forks == (3 if can_fork else 0)
    assert sum(model.step_tokens) == (10 if can_fork else 10 + 3 * 2) + 4 * 5


@pytest.mark.parametrize("budget", [7, 16, 64, 256])
def test_requests_of_one_new_prefix_compute_it_once(budget: int) -> None:
    """Six that come at once compute the 32 tokens that they share once, in chunks or whole, and then each its own."""
    scheduler, model = make_scheduler(num_blocks=64, max_step_tokens=budget), FakeModel(64, BLOCK_SIZE)
    prompts = [[*range(32), i, i] for i in range(6)]
    sequences = [submit(scheduler, make_request(str(i), prompt, 3)) for i, prompt in enumerate(prompts)]
    run_to_end(scheduler, model)
    assert sum(model.step_tokens) == 32 + 6 * (2 + 2)
    assert [generated(sequence) for sequence in sequences] == [expected(prompt, 3) for prompt in prompts]
    assert [sequence.num_prefix_hit_tokens for sequence in sequences] == [0, *[32] * 5]


def test_requests_of_one_new_prefix_begin_in_one_step() -> None:
    """Where the budget allows it nobody waits for who computes the prefix, nor does a request without it."""
    scheduler, model = make_scheduler(num_blocks=64, max_step_tokens=64), FakeModel(64, BLOCK_SIZE)
    for i, prompt in enumerate(([*range(32), 1], [*range(32), 2], [5, 6], [*range(32), 3])):
        submit(scheduler, make_request(str(i), prompt, 1))
    run_to_end(scheduler, model)
    assert model.step_tokens == [33 + 1 + 2 + 1]


def test_a_prefix_goes_on_when_who_computes_it_leaves() -> None:
    """What its first chunks filled is found by the next, which computes the rest for the others."""
    scheduler, model = make_scheduler(num_blocks=64, max_step_tokens=16), FakeModel(64, BLOCK_SIZE)
    first, *others = [submit(scheduler, make_request(str(i), [*range(32), i], 2)) for i in range(4)]
    run_step(scheduler, model)
    scheduler.cancel(first)
    run_to_end(scheduler, model)
    assert sum(model.step_tokens) == 32 + 3 * (1 + 1)
    assert [generated(s) for s in others] == [expected([*range(32), i], 2) for i in range(1, 4)]


def test_tenants_compute_a_new_prefix_apart() -> None:
    """Requests with another salt share nothing, though they begin in the same step."""
    scheduler, model = make_scheduler(num_blocks=64, max_step_tokens=256), FakeModel(64, BLOCK_SIZE)
    for i in range(4):
        submit(scheduler, make_request(str(i), [*range(32), i], 1, salt=bytes([i % 2])))
    run_to_end(scheduler, model)
    assert model.step_tokens == [2 * (33 + 1)]


def test_a_prompt_is_computed_in_smaller_chunks_beside_decodes() -> None:
    """Up to the budget of a mixed step, and never less than a chunk that is worth a step."""
    scheduler, model = make_scheduler(num_blocks=256, max_step_tokens=200), FakeModel(256, BLOCK_SIZE)
    submit(scheduler, make_request("first", list(range(190)), 20))
    run_step(scheduler, model)
    submit(scheduler, make_request("second", list(range(1, 191)), 20))
    for budget in (50, 2):
        run_step(scheduler, model, budget)
    assert model.step_tokens == [190, 50, 1 + MIN_CHUNK]


def test_a_short_prompt_does_not_wait_for_a_long_one_that_was_begun() -> None:
    """It is computed between two chunks, and the long one goes on beside it."""
    scheduler, model = make_scheduler(num_blocks=64, max_step_tokens=8), FakeModel(64, BLOCK_SIZE)
    long = submit(scheduler, make_request("long", list(range(40)), 2))
    run_step(scheduler, model)
    short = submit(scheduler, make_request("short", [1, 2, 3], 2))
    run_step(scheduler, model)
    assert (short.num_generated, long.num_computed) == (1, 8 + 5)
    run_to_end(scheduler, model)
    assert generated(long) == expected(range(40), 2, 0)


def test_a_prompt_that_is_overtaken_takes_what_was_computed_meanwhile() -> None:
    """A shorter prompt with the same beginning goes first; the longer one does not compute that once more."""
    scheduler, model = make_scheduler(num_blocks=64, max_step_tokens=8), FakeModel(64, BLOCK_SIZE)
    long = submit(scheduler, make_request("long", [*range(24), 1, 2, 3, 4], 2))
    run_step(scheduler, model)
    short = submit(scheduler, make_request("short", [*range(24), 9], 2))
    run_to_end(scheduler, model)
    assert sum(model.step_tokens) == 24 + 4 + 1 + 2
    assert generated(long) == expected([*range(24), 1, 2, 3, 4], 2, 0)
    assert generated(short) == expected([*range(24), 9], 2, 0)


def test_a_newcomer_has_a_step_without_the_answers_of_a_flood() -> None:
    """Its prompt is computed alone, neither split nor beside others of the flood; then all go on."""
    scheduler, model = make_scheduler(num_blocks=256, max_step_tokens=64), FakeModel(256, BLOCK_SIZE)
    flood = [submit(scheduler, make_request(str(i), [i], 20, tenant="flood")) for i in range(6)]
    run_step(scheduler, model, 8)
    newcomer = submit(scheduler, make_request("new", list(range(40)), 2, tenant="other"))
    submit(scheduler, make_request("more", list(range(9)), 2, tenant="flood"))
    run_step(scheduler, model, 8)
    assert model.step_tokens[-1] == 40
    assert newcomer.num_generated == 1
    run_step(scheduler, model, 8)
    assert [sequence.num_generated for sequence in flood] == [2] * 6


def test_a_flood_of_short_prompts_does_not_keep_another_tenant_from_its_end() -> None:
    """A prompt that is begun goes on before those of a tenant that runs more, though they are due before it."""
    scheduler, model = make_scheduler(num_blocks=256, max_batch_size=64, max_step_tokens=8), FakeModel(256, BLOCK_SIZE)
    for i in range(40):
        submit(scheduler, make_request(str(i), [i] * 4, 30, tenant="flood"))
    run_step(scheduler, model)
    prompt = submit(scheduler, make_request("other", list(range(40)), 1, tenant="other"))
    for _ in range(8):
        run_step(scheduler, model)
    assert prompt.is_done


def test_forks_share_the_blocks_of_their_prompt() -> None:
    """Two whole blocks and a partial one: shared by all until each writes, and then only the partial one is copied."""
    scheduler, model = make_scheduler(num_blocks=32), FakeModel(32, BLOCK_SIZE)
    scheduler.submit_group(make_group(list(range(10)), [6] * 3))
    run_step(scheduler, model)
    assert scheduler.pool.num_used == 3
    step = run_step(scheduler, model)
    assert step is not None
    assert len(unpack(step.copy_blocks)) == 2
    assert scheduler.pool.num_used == 5


@pytest.mark.parametrize("leaver", [0, 1])
def test_a_group_goes_on_without_a_member(leaver: int) -> None:
    """Whether the prompt_owner is cancelled halfway through the prompt or another: the rest get their own tokens."""
    scheduler, model = make_scheduler(num_blocks=32, max_step_tokens=4), FakeModel(32, BLOCK_SIZE)
    group = scheduler.submit_group(make_group(list(range(10)), [6] * 3))
    run_step(scheduler, model)
    scheduler.cancel(group[leaver])
    scheduler.check_integrity()
    run_to_end(scheduler, model)
    assert [generated(s) for i, s in enumerate(group) if i != leaver] == [
        expected(range(10), 6, seed) for seed in range(3) if seed != leaver
    ]
    assert not generated(group[leaver])


def test_a_group_larger_than_the_batch_is_served_in_parts() -> None:
    """Five requests of one prompt on two slots all end, the prompt computed once for every two."""
    scheduler, model = make_scheduler(max_batch_size=2), FakeModel(NUM_BLOCKS, BLOCK_SIZE)
    group = scheduler.submit_group(make_group([1, 2, 3], [2] * 5))
    assert scheduler.num_waiting == 5
    run_to_end(scheduler, model)
    assert sum(model.step_tokens) == 3 * 3 + 5
    assert [generated(s) for s in group] == [expected([1, 2, 3], 2, seed) for seed in range(5)]


def test_newcomers_leave_the_slots_that_a_group_needs() -> None:
    """While a group's prompt is computed, a request behind it does not take a fork's slot."""
    scheduler, model = make_scheduler(num_blocks=64, max_batch_size=3, max_step_tokens=8), FakeModel(64, BLOCK_SIZE)
    group = scheduler.submit_group(make_group(list(range(12)), [3] * 3))
    behind = submit(scheduler, make_request("behind", [1] * 13, 1))
    run_step(scheduler, model)
    assert [s.slot >= 0 for s in (*group, behind)] == [True, False, False, False]
    run_step(scheduler, model)
    assert [s.slot >= 0 for s in (*group, behind)] == [True, True, True, False]
    run_to_end(scheduler, model)
    assert behind.is_done


def test_prompts_run_in_chunks_of_the_budget() -> None:
    """A prompt longer than the budget is computed over several steps, none above the budget."""
    scheduler, model = make_scheduler(max_step_tokens=7), FakeModel(NUM_BLOCKS, BLOCK_SIZE)
    sequence = submit(scheduler, make_request("a", list(range(20)), 3))
    run_to_end(scheduler, model)
    assert model.step_tokens == [7, 7, 6, 1, 1]
    assert generated(sequence) == expected(range(20), 3)


def test_decodes_come_before_prompts() -> None:
    """While a long prompt is computed in chunks, a running sequence gains a token at every step."""
    scheduler, model = make_scheduler(max_step_tokens=5), FakeModel(NUM_BLOCKS, BLOCK_SIZE)
    first = submit(scheduler, make_request("first", [1], 12))
    run_step(scheduler, model)
    submit(scheduler, make_request("second", list(range(16)), 1))
    for _ in range(4):
        before = len(generated(first))
        step = run_step(scheduler, model)
        assert step is not None
        assert (step.num_decodes, unpack(step.num_tokens).tolist()) == (1, [4])
        assert len(generated(first)) == before + 1


def test_a_preempted_sequence_continues_with_the_same_tokens() -> None:
    """When blocks run out the newest is recomputed later, and neither text changes."""
    scheduler, model = make_scheduler(num_blocks=6), FakeModel(6, BLOCK_SIZE)
    old = submit(scheduler, make_request("old", [1, 2, 3], 18))
    new = submit(scheduler, make_request("new", [4, 5, 6], 18))
    run_to_end(scheduler, model)
    assert scheduler.num_preemptions > 0
    assert generated(old) == expected([1, 2, 3], 18)
    assert generated(new) == expected([4, 5, 6], 18)


@pytest.mark.parametrize("scarce", ["slots", "blocks"])
def test_a_tenant_that_runs_nothing_takes_the_place_of_one_of_many(scarce: str) -> None:
    """Slots or blocks all belong to one tenant: the newest of those waits, and goes on later with the same tokens."""
    num_blocks, size = (64, 3) if scarce == "slots" else (9, 8)
    scheduler, model = make_scheduler(num_blocks=num_blocks, max_batch_size=size), FakeModel(num_blocks, BLOCK_SIZE)
    many = [submit(scheduler, make_request(str(i), [i, 1, 2], 20, tenant="many")) for i in range(6)]
    for _ in range(3):
        run_step(scheduler, model)
    oldest = scheduler.running[0]
    one = submit(scheduler, make_request("one", [9, 9], 2, tenant="one"))
    run_step(scheduler, model)
    scheduler.check_integrity()
    assert len(generated(one)) == 1
    assert oldest.slot >= 0
    assert scheduler.num_preemptions > 0
    run_to_end(scheduler, model)
    assert [generated(s) for s in many] == [expected([i, 1, 2], 20) for i in range(6)]


def test_tenants_with_one_sequence_each_are_not_preempted_for_another() -> None:
    """Where every tenant runs one sequence, the next tenant waits for a slot."""
    scheduler, model = make_scheduler(num_blocks=64, max_batch_size=2), FakeModel(64, BLOCK_SIZE)
    for tenant in ("a", "b", "c"):
        submit(scheduler, make_request(tenant, [1], 5, tenant=tenant))
    run_to_end(scheduler, model)
    assert scheduler.num_preemptions == 0


def test_slots_are_shared_between_tenants() -> None:
    """Ten requests each of two tenants, one's all before the other's: after half of the time half of each has ended."""
    scheduler, model = make_scheduler(num_blocks=64, max_batch_size=4), FakeModel(64, BLOCK_SIZE)
    sequences = {
        tenant: [submit(scheduler, make_request(f"{tenant}{i}", [i], 4, tenant=tenant)) for i in range(10)]
        for tenant in ("first", "second")
    }
    for _ in range(12):
        run_step(scheduler, model)
    assert {tenant: sum(s.is_done for s in own) for tenant, own in sequences.items()} == {"first": 6, "second": 6}


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


def test_an_end_token_ends_the_text_unless_ignored() -> None:
    """eos_token is the reason when the model ends its text; ignore_eos goes on to the length."""
    eos = next_token([9])
    for ignore, reason, count in [(False, FinishReason.EOS_TOKEN, 1), (True, FinishReason.LENGTH, 4)]:
        scheduler = make_scheduler(eos=frozenset({eos}))
        sequence = submit(scheduler, Request("a", (9,), SamplingParams(), 4, ignore_eos=ignore))
        run_to_end(scheduler, FakeModel(NUM_BLOCKS, BLOCK_SIZE))
        assert sequence.finish_reason is reason
        assert len(generated(sequence)) == count


def test_a_stop_token_ends_the_text() -> None:
    """stop_sequence is the reason when a token of the client's own choice ends it, end of text or not."""
    stop = next_token([9])
    scheduler = make_scheduler(eos=frozenset({stop}))
    request = Request("a", (9,), SamplingParams(), 4, ignore_eos=True, stop_token_ids=frozenset({stop}))
    sequence = submit(scheduler, request)
    run_to_end(scheduler, FakeModel(NUM_BLOCKS, BLOCK_SIZE))
    assert sequence.finish_reason is FinishReason.STOP_SEQUENCE
    assert len(generated(sequence)) == 1


def test_a_complete_grammar_ends_the_text_even_if_ends_are_ignored() -> None:
    """Once nothing but the end is allowed, ignore_eos cannot make the text go on."""
    eos = next_token([9])
    scheduler = make_scheduler(eos=frozenset({eos}))
    sampling = SamplingParams(grammar=Grammar("regex", "a"))
    sequence = submit(scheduler, Request("a", (9,), sampling, 4, ignore_eos=True))
    run_to_end(scheduler, FakeModel(NUM_BLOCKS, BLOCK_SIZE))
    assert sequence.finish_reason is FinishReason.EOS_TOKEN


def test_a_request_that_never_fits_is_refused() -> None:
    """A request larger than the whole cache is refused on submission, not queued for ever."""
    scheduler = make_scheduler()
    with pytest.raises(ValueError, match="never fit"):
        submit(scheduler, make_request("a", [1] * 40, 9))


def test_a_decode_step_of_256_sequences_is_under_two_kilobytes() -> None:
    """The message of a decode step stays small, whatever the sequences hold."""
    scheduler = make_scheduler(num_blocks=10_000, max_batch_size=256, max_step_tokens=4096)
    model = FakeModel(10_000, BLOCK_SIZE)
    for i in range(256):
        submit(scheduler, make_request(str(i), [i % 250] * 9, 50))
    run_step(scheduler, model)
    step = run_step(scheduler, model)
    assert step is not None
    assert len(unpack(step.slots)) == 256
    assert len(encode(step)) < 2048


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
