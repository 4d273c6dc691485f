"""A server with 50,000 keys keeps no more of each than it needs."""

from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduling.fair_queue import EXPECTED_TOKENS, KEPT_TENANTS, FairQueue


class Item:
    """A request in a queue."""

    virtual_deadline = 0

    def __init__(self, tenant: str, num_input: int = 1) -> None:
        self.request = Request("", (1,) * num_input, SamplingParams(), 1, tenant=tenant)


def serve(queue: FairQueue[Item], item: Item) -> None:
    """The request arrives and starts at once."""
    queue.append(item, len(item.request.prompt_ids))
    queue.take(item)


def test_idle_tenants_are_forgotten() -> None:
    """After 50,000 keys have sent a request each, the queue keeps few of them, and the next one is found as soon."""
    queue: FairQueue[Item] = FairQueue()
    for number in range(50_000):
        serve(queue, Item(f"tenant {number}", num_input=10))
        assert queue.num_tenants < 4 * KEPT_TENANTS
    queue.check_integrity()


def test_a_tenant_that_was_forgotten_gains_nothing() -> None:
    """Its counter is at least what it was: it may not go before one that has waited for its turn."""
    queue: FairQueue[Item] = FairQueue()
    serve(queue, Item("early", num_input=10))
    before = queue.counter("early")
    for number in range(5_000):
        serve(queue, Item(f"tenant {number}", num_input=EXPECTED_TOKENS))
    serve(queue, Item("early"))
    assert queue.counter("early") >= before
