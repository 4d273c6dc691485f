"""The limits on a flood of one tenant: pure decisions, on steps that take a modelled time."""

from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from random import Random
from statistics import median

import pytest

from fake_shards import FakeModel, submit
from peregrine_router.engine.step_times import num_tokens
from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.fair_queue import FairQueue
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.scheduling.sequence import Sequence
from peregrine_router.scheduling.step_limits import MIN_CHUNK, StepBudget
from peregrine_server.protocol import Step, StepResult, unpack

MAX_STEP_TOKENS = 256
MIXED_TOKENS = 50
SEND_AT_FRACTION = 0.8
NUM_BLOCKS, BLOCK_SIZE, CAPACITY = 1024, 64, 128


def step_seconds(num_tokens: int) -> float:
    """A 1.15 B Falcon on two cores: 0.12 s for 16 tokens, 1.34 s for 256."""
    return max(0.045, 0.035 + 0.0051 * num_tokens)


class Server:
    """A scheduler two of whose steps are in flight, the second sent late in the first; the clock jumps."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(
            BlockPool(NUM_BLOCKS, BLOCK_SIZE),
            FairPolicy(CAPACITY, lead=MAX_STEP_TOKENS),
            max_batch_size=CAPACITY,
            max_step_tokens=MAX_STEP_TOKENS,
            eos_token_ids=frozenset(),
        )
        self.now = self.last_end = 0.0
        self.steps: list[Step] = []
        self._model = FakeModel(NUM_BLOCKS, BLOCK_SIZE)
        self._random = Random(0)
        self._in_flight: deque[tuple[float, StepResult]] = deque()
        """(time of its end, result) of each."""

    def submit(self, tenant: str, length: int, new: int) -> Sequence:
        prompt = tuple(self._random.choices(range(250), k=length))
        name = f"{tenant}{self._random.random()}"
        return submit(self.scheduler, Request(name, prompt, SamplingParams(), new, ignore_eos=True, tenant=tenant))

    def flood(self, new: int, count: int = 112) -> list[Sequence]:
        return [self.submit("noisy", 64, new) for _ in range(count)]

    def turn(self) -> Step | None:
        """A step is sent, if there is one, and the oldest answer is taken if two are in flight."""
        if (step := self.scheduler.schedule(StepBudget(MAX_STEP_TOKENS, MIXED_TOKENS))) is not None:
            begin = self._in_flight[-1][0] if self._in_flight else self.now
            seconds = step_seconds(num_tokens(step))
            self._in_flight.append((begin + seconds, self._model.execute(step)))
            self.steps.append(step)
            if len(self._in_flight) == 1:
                self.now = begin + SEND_AT_FRACTION * seconds
                return step
        if self._in_flight:
            self.now, result = self._in_flight.popleft()
            self.scheduler.commit(result)
            self.last_end = self.now
        if self._in_flight:
            self.now += SEND_AT_FRACTION * (self._in_flight[0][0] - self.now)
        return step

    def run(self, count: int) -> list[Step]:
        """The next `count` steps."""
        before = len(self.steps)
        while len(self.steps) < before + count:
            self.turn()
        return self.steps[before:]

    def seconds_to_first_tokens(self, length: int, count: int) -> Iterator[float]:
        """Seconds to the first token of the quiet tenant's prompts, one after the other, at any moment of a step."""
        for _ in range(count):
            came = self.now + self._random.uniform(0, 1)
            while self.now < came:
                if self.turn() is None and not self._in_flight:
                    self.now = came
            sequence = self.submit("quiet", length, 1)
            while not sequence.is_done:
                self.turn()
            yield self.last_end - came


def decodes(step: Step, sequences: list[Sequence]) -> int:
    """How many of these, none of which has left its slot, a step computes the next token of."""
    slots = {sequence.slot for sequence in sequences}
    return len(slots.intersection(unpack(step.slots)[: step.num_decodes].tolist()))


@pytest.mark.parametrize("new", [64, 400])
@pytest.mark.parametrize("length", [32, 256])
def test_a_flood_does_not_double_the_wait_of_another(length: int, new: int) -> None:
    """112 requests of one tenant, most of them waiting: another's median time to first token does not double."""
    server = Server()
    alone = median(server.seconds_to_first_tokens(length, 5))
    server.flood(new)
    server.run(10)
    assert median(server.seconds_to_first_tokens(length, 11)) < 2 * alone


def test_a_flood_that_waits_leaves_a_step_to_a_newcomer() -> None:
    """Few of its answers run, many requests wait: a newcomer's prompt is computed whole and alone."""
    server = Server()
    server.flood(64)
    server.run(3)
    server.submit("quiet", 200, 1)
    (step,) = server.run(1)
    assert (step.num_decodes, num_tokens(step)) == (0, 200)


def test_streams_within_their_share_do_not_wait_for_a_prompt() -> None:
    """Sixteen answers of one tenant go on in every step that computes another's long prompt."""
    server = Server()
    server.submit("quiet", 10, 1)
    streams = [server.submit("noisy", 8, 200) for _ in range(16)]
    server.run(3)
    long = server.submit("quiet", 1000, 1)
    while not long.is_done:
        (step,) = server.run(1)
        assert decodes(step, streams) == 16


def test_no_two_steps_in_turn_leave_a_flood_out() -> None:
    """While another's long prompt is computed, and short ones come one after the other, a flood goes on."""
    server = Server()
    flood = server.flood(400, count=100)
    while any(sequence.slot < 0 for sequence in flood):
        server.run(1)
    long, counts = server.submit("quiet", 1500, 1), []
    while not long.is_done:
        (step,) = server.run(1)
        counts.append(decodes(step, flood))
    assert 0 in counts
    assert not any(first == second == 0 for first, second in pairwise(counts))


def test_a_tenant_that_was_served_a_step_more_pauses_nobody() -> None:
    """A tenant cannot keep a flood from its answers by sending one short request after another."""
    server = Server()
    server.flood(400)
    server.run(3)
    for _ in range(40):
        server.submit("quiet", 200, 1)
        server.run(2)
    queue = server.scheduler.waiting
    assert isinstance(queue, FairQueue)
    served = [queue.counter(tenant) for tenant in ("noisy", "quiet")]
    assert served[1] <= served[0] + MAX_STEP_TOKENS + 200


def test_answers_of_a_flood_take_turns_while_another_tenant_may_come() -> None:
    """Its steps are short, and none of its answers falls behind another by more than a token."""
    server = Server()
    flood = server.flood(400, count=70)
    while any(not sequence.num_generated for sequence in flood):
        server.run(1)
    server.submit("quiet", 10, 1)
    server.run(5)
    before = [sequence.num_generated for sequence in flood]
    steps = server.run(30)
    assert max(map(num_tokens, steps)) <= MIN_CHUNK
    gained = [sequence.num_generated - count for sequence, count in zip(flood, before, strict=True)]
    assert max(gained) - min(gained) <= 1 < min(gained)


@pytest.mark.parametrize("others", [0, 1])
def test_a_tenant_that_is_alone_is_not_slowed(others: int) -> None:
    """However many its answers are, all gain a token in each step; so they do when another has not come for long."""
    server = Server()
    for _ in range(others):
        server.submit("quiet", 10, 1)
    flood = server.flood(400, count=70)
    while any(not sequence.num_generated for sequence in flood):
        server.run(1)
    assert [step.num_decodes for step in server.run(5)] == [70] * 5


def test_a_prompt_that_pauses_nobody_is_not_slowed() -> None:
    """Beside the answers of a flood, which take turns, it has the room that prompts have beside others."""
    server = Server()
    server.flood(400)
    server.submit("quiet", 10, 100)
    server.run(20)
    second = server.submit("quiet", 200, 1)
    before = sum(sequence.num_generated > 0 for sequence in server.scheduler.running)
    (step,) = server.run(1)
    assert before > 1
    assert num_tokens(step) == MIXED_TOKENS
    assert second.slot >= 0
