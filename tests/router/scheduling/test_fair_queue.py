"""The waiting queue: virtual token counters between tenants, priority and arrival within one."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduling.fair_queue import (
    EXPECTED_TOKENS,
    INPUT_WEIGHT,
    LENGTH_WEIGHT,
    OUTPUT_WEIGHT,
    FairQueue,
)

MAX_INPUT, MAX_OUTPUT, BATCH = 20, 12, 4


@dataclass(eq=False)
class Item:
    """A request in a queue, and how many tokens it has still to generate."""

    request: Request
    remaining: int = 0
    virtual_deadline: int = 0


def make_item(tenant: str = "", priority: int = 0, num_input: int = 1, num_output: int = 1) -> Item:
    request = Request("", (1,) * num_input, SamplingParams(), num_output, tenant=tenant, priority=priority)
    return Item(request, num_output)


def arrive(queue: FairQueue[Item], item: Item) -> None:
    queue.append(item, len(item.request.prompt_ids))


def take_next(queue: FairQueue[Item], exclude: Collection[str] = ()) -> Item:
    item = queue.peek(exclude)
    assert item is not None
    queue.take(item)
    return item


def weight(item: Item) -> int:
    return INPUT_WEIGHT * len(item.request.prompt_ids) + OUTPUT_WEIGHT * item.request.max_new_tokens


class Server:
    """A batch that is filled from the queue; every step gives each sequence in it a token."""

    def __init__(self) -> None:
        self.queue: FairQueue[Item] = FairQueue()
        self.running: list[Item] = []
        self.served: dict[str, int] = {}

    def step(self) -> None:
        """Work conserving: no slot stays empty while anybody waits."""
        while len(self.running) < BATCH and self.queue:
            item = take_next(self.queue)
            self.running.append(item)
            self.serve(item, INPUT_WEIGHT * len(item.request.prompt_ids))
        for item in self.running:
            self.queue.charge_outputs([item.request.tenant])
            self.serve(item, OUTPUT_WEIGHT)
            item.remaining -= 1
        self.running = [item for item in self.running if item.remaining]

    def serve(self, item: Item, tokens: int) -> None:
        self.served[item.request.tenant] = self.served.get(item.request.tenant, 0) + tokens


sizes = st.tuples(st.integers(1, MAX_INPUT), st.integers(1, MAX_OUTPUT))


@settings(max_examples=100, deadline=None)
@given(st.lists(sizes, min_size=1, max_size=8), st.lists(sizes, min_size=1, max_size=8), st.integers(BATCH + 1, 20))
def test_backlogged_tenants_are_served_alike(
    first: list[tuple[int, int]], second: list[tuple[int, int]], depth: int
) -> None:
    """Whatever two tenants ask for and however much of it waits, what they got differs by the paper's 2U at most."""
    bound = 2 * max(INPUT_WEIGHT * MAX_INPUT, OUTPUT_WEIGHT * BATCH * (MAX_INPUT + MAX_OUTPUT))
    server = Server()
    made = dict.fromkeys(("first", "second"), 0)
    for _ in range(300):
        for tenant, mix, wanted in (("first", first, depth), ("second", second, BATCH + 1)):
            while sum(item.request.tenant == tenant for item in server.queue) < wanted:
                num_input, num_output = mix[made[tenant] % len(mix)]
                arrive(server.queue, make_item(tenant, num_input=num_input, num_output=num_output))
                made[tenant] += 1
        server.step()
        assert abs(server.served.get("first", 0) - server.served.get("second", 0)) <= bound


@pytest.mark.slow
@given(st.integers(1, 200), st.integers(2, 6))
def test_nobody_waits_for_all_of_a_flood(num_flood: int, num_tenants: int) -> None:
    """However many of one tenant's wait, another's first request is the next, or after those of tenants like it."""
    queue: FairQueue[Item] = FairQueue()
    for _ in range(num_flood + 1):
        arrive(queue, make_item("noisy", num_input=3))
    take_next(queue)
    others = [make_item(str(number)) for number in range(num_tenants)]
    for item in others:
        arrive(queue, item)
    assert [take_next(queue) for _ in others] == others


def test_time_without_requests_is_no_credit() -> None:
    """A tenant that comes back is lifted to the least that waits, and from then on shares evenly."""
    queue: FairQueue[Item] = FairQueue()
    for _ in range(50):
        arrive(queue, make_item("busy", num_input=10))
    for _ in range(20):
        take_next(queue)
    for _ in range(10):
        arrive(queue, make_item("back", num_input=10))
    assert queue.counter("back") == queue.counter("busy") == 200
    order = [take_next(queue).request.tenant for _ in range(20)]
    assert order == ["back", "busy"] * 10


def test_an_empty_queue_keeps_the_last_level() -> None:
    """The first tenant in an empty queue is lifted to the one served last."""
    queue: FairQueue[Item] = FairQueue()
    arrive(queue, make_item("busy", num_input=10))
    take_next(queue)
    arrive(queue, make_item("other"))
    assert queue.counter("other") == 10


def test_priority_then_arrival() -> None:
    """A tenant's highest priority is next, equals in order; another tenant's priority counts for nothing."""
    queue: FairQueue[Item] = FairQueue()
    items = [make_item("a", priority) for priority in (0, 5, -1, 5)]
    for item in items:
        arrive(queue, item)
    arrive(queue, make_item("b", 100))
    mine = [item for item in (take_next(queue) for _ in range(5)) if item.request.tenant == "a"]
    assert [items.index(item) for item in mine] == [1, 3, 0, 2]


def test_what_was_interrupted_goes_first_and_pays_once() -> None:
    """A preempted request is ahead of all of its tenant's, and is not charged for its prompt again."""
    queue: FairQueue[Item] = FairQueue()
    first, second = make_item("a", num_input=7), make_item("a", priority=9)
    arrive(queue, first)
    take_next(queue)
    arrive(queue, second)
    queue.appendleft(first)
    assert take_next(queue) is first
    assert queue.counter("a") == 7


def test_a_short_prompt_goes_before_a_long_one() -> None:
    """The shortest of those that come at once is first, and equals in the order of tsuccessor arrival."""
    queue: FairQueue[Item] = FairQueue()
    items = [make_item(num_input=size) for size in (9, 2, 5, 2)]
    for item in items:
        arrive(queue, item)
    assert [items.index(take_next(queue)) for _ in items] == [1, 3, 2, 0]


@given(st.integers(2, 200), st.integers(1, 20))
def test_a_long_prompt_waits_for_so_much_and_no_more(length: int, short: int) -> None:
    """However many shorter ones come, it is next when a multiple of its own tokens has been served."""
    queue: FairQueue[Item] = FairQueue()
    long = make_item(num_input=length)
    arrive(queue, long)
    served = 0
    while True:
        arrive(queue, make_item(num_input=short))
        item = take_next(queue)
        if item is long:
            break
        served += len(item.request.prompt_ids)
    assert served <= max(LENGTH_WEIGHT * (length - short), 0) + short


def test_the_next_but_for_some_tenants() -> None:
    """The next request is of a tenant that is not excluded; None if there is none."""
    queue: FairQueue[Item] = FairQueue()
    first, second = make_item("first"), make_item("second", num_input=2)
    arrive(queue, first)
    arrive(queue, second)
    assert queue.peek() is first
    assert queue.peek({"first"}) is second
    assert queue.peek({"first", "second"}) is None
    assert take_next(queue, {"first"}) is second


def test_another_tenant_is_expected_for_a_while() -> None:
    """EXPECTED_TOKENS after its last request it is not; and none is expected where one is alone."""
    queue: FairQueue[Item] = FairQueue()
    arrive(queue, make_item("other"))
    assert not queue.expects_another("other")
    arrive(queue, make_item("many"))
    assert queue.expects_another("many")
    queue.charge_outputs(["many"] * (EXPECTED_TOKENS // OUTPUT_WEIGHT - 1))
    assert queue.expects_another("many")
    queue.charge_outputs(["many"])
    assert not queue.expects_another("many")


class Histories(RuleBasedStateMachine):
    """Arrivals, interruptions, departures in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[Item] = FairQueue()
        self.out: list[Item] = []
        self.numbers = count()
        self.arrived: dict[Item, int] = {}

    @rule(tenant=st.sampled_from("abc"), priority=st.integers(-2, 2), num_input=st.integers(1, 9))
    def arrive(self, tenant: str, priority: int, num_input: int) -> None:
        item = make_item(tenant, priority, num_input)
        self.arrived[item] = next(self.numbers)
        arrive(self.queue, item)

    @precondition(lambda self: self.queue)
    @rule()
    def take(self) -> None:
        expected = self.queue.peek()
        assert expected is not None
        waiting = {item.request.tenant for item in self.queue}
        least = min(map(self.queue.counter, waiting))
        assert self.queue.counter(expected.request.tenant) == least
        assert take_next(self.queue) is expected
        self.out.append(expected)

    @precondition(lambda self: self.out)
    @rule()
    def interrupt(self) -> None:
        item = self.out.pop()
        self.queue.appendleft(item)
        self.arrived[item] = -next(self.numbers)

    @precondition(lambda self: self.out)
    @rule()
    def generate(self) -> None:
        self.queue.charge_outputs([self.out[0].request.tenant])

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(list(self.queue)))
        if data.draw(st.booleans()):
            successor = make_item(item.request.tenant, item.request.priority)
            successor.virtual_deadline = item.virtual_deadline
            self.arrived[successor] = self.arrived[item]
            self.queue.replace(item, successor)
        else:
            self.queue.remove(item)
        assert item not in self.queue

    @invariant()
    def holds_together(self) -> None:
        self.queue.check_integrity()

    def teardown(self) -> None:
        """Everything that waits can be taken out, each tenant's in its order."""
        left = [take_next(self.queue) for _ in range(len(self.queue))]
        for tenant in "abc":
            mine = [item for item in left if item.request.tenant == tenant]
            assert mine == sorted(mine, key=self._order)
        assert not self.queue

    def _order(self, item: Item) -> tuple[bool, int, int, int]:
        number = self.arrived[item]
        is_fresh = number >= 0
        return is_fresh, -item.request.priority * is_fresh, item.virtual_deadline * is_fresh, number


Histories.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestHistories = pytest.mark.slow(Histories.TestCase)
"""The next is always of the least served tenant; nothing is lost; a successor keeps the place."""
