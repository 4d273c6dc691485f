"""Scheduling under policies other than the default."""

from collections.abc import Collection

from fake_shards import FakeModel, expected, submit
from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.fair_queue import FairQueue
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.scheduling.sequence import Sequence

BLOCK_SIZE = 4


class NewestFirst(FairQueue[Sequence]):
    """Last come, first served; requests are named by their arrival."""

    def peek(self, exclude: Collection[str] = ()) -> Sequence | None:
        """The newest request."""
        return max(self, key=lambda sequence: int(sequence.request.id), default=None)


class OldestGivesWay(FairPolicy):
    """Preempts the oldest of the sequences that may be preempted."""

    def victim(self, candidates: list[Sequence], running: list[Sequence]) -> Sequence | None:
        """The first candidate, unless it is the oldest of all."""
        return next((each for each in candidates if each is not running[0]), None)


def serve(policy: FairPolicy, count: int, *, num_blocks: int = 64, max_batch_size: int = 1) -> list[str]:
    """The ids of requests of three prompt tokens and twelve new ones, in the order of their ends; each with its own
    tokens."""
    pool, model = BlockPool(num_blocks, BLOCK_SIZE), FakeModel(num_blocks, BLOCK_SIZE)
    scheduler = Scheduler(pool, policy, max_batch_size=max_batch_size, max_step_tokens=16, eos_token_ids=frozenset())
    for number in range(count):
        submit(scheduler, Request(str(number), (number, 1, 2), SamplingParams(), 12))
    ended: list[str] = []
    while (step := scheduler.schedule()) is not None:
        for token in scheduler.commit(model.execute(step)):
            if token.finish_reason is not None:
                sequence = token.sequence
                assert sequence.token_ids[3:] == expected(sequence.request.prompt_ids, 12)
                ended.append(sequence.request.id)
        scheduler.check_integrity()
    return ended


def test_the_order_of_requests_is_the_queues() -> None:
    """Where one request runs at a time, the default serves in order of arrival, and another queue in its own order."""
    assert serve(FairPolicy(1, lead=16), 4) == ["0", "1", "2", "3"]
    assert serve(FairPolicy(1, lead=16, waiting=NewestFirst()), 4) == ["3", "2", "1", "0"]


def test_the_policy_chooses_who_is_preempted() -> None:
    """Three requests in blocks for two: the default preempts the newest, another policy the second, which ends last."""
    assert serve(FairPolicy(3, lead=16), 3, num_blocks=7, max_batch_size=3) == ["0", "1", "2"]
    assert serve(OldestGivesWay(3, lead=16), 3, num_blocks=7, max_batch_size=3) == ["0", "2", "1"]
