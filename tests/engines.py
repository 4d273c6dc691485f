"""Engines on shards without a model, for tests."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fake_shards import FakeModel, FakeShards, byte_tokenizer, submit
from peregrine_router.admission.limits import QueueLimit
from peregrine_router.engine.engine import Engine
from peregrine_router.engine.step_times import StepTimes
from peregrine_router.engine.token_stream import RequestStream
from peregrine_router.interfaces import StepObserver
from peregrine_router.request import (
    Request,
    SamplingParams,
    TokenEvent,
)
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.in_flight import StepInFlight
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler

BLOCK_SIZE = 4


class Rig:
    """An engine on fake shards, and its parts."""

    def __init__(
        self,
        num_blocks: int,
        step_seconds: float,
        bound: QueueLimit | None = None,
        watch: Callable[[deque[StepInFlight]], StepObserver] | None = None,
        **options: Any,
    ) -> None:
        """`watch`: makes an observer of the steps in flight."""
        self.tokenizer = byte_tokenizer()
        self.model = FakeModel(num_blocks, BLOCK_SIZE)
        self.shards = FakeShards(self.model, step_seconds)
        pool = BlockPool(num_blocks, BLOCK_SIZE)
        self.scheduler = Scheduler(
            pool, FairPolicy(8, lead=16), max_batch_size=8, max_step_tokens=16, eos_token_ids=frozenset()
        )
        self.steps = StepTimes()
        if watch is not None:
            options["observers"] = [watch(self.scheduler.in_flight)]
        self.engine = Engine(self.shards, self.scheduler, self.tokenizer, bound, self.steps, **options)

    def submit(self, prompt: list[int], count: int, stop: tuple[str, ...] = ()) -> RequestStream:
        return submit(self.engine, make_request(prompt, count, stop=stop))


def make_request(prompt: list[int], count: int, seed: int = 0, stop: tuple[str, ...] = ()) -> Request:
    return Request(f"{prompt}-{count}-{seed}", tuple(prompt), SamplingParams(logprobs=True, seed=seed), count, stop)


@asynccontextmanager
async def running(
    num_blocks: int = 64, step_seconds: float = 0.0, bound: QueueLimit | None = None, **options: Any
) -> AsyncIterator[Rig]:
    rig = Rig(num_blocks, step_seconds, bound, **options)
    task = asyncio.create_task(rig.engine.run())
    yield rig
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def read(stream: RequestStream) -> list[TokenEvent]:
    events: list[TokenEvent] = []
    while more := await stream.take():
        events += more
    return events


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the condition is another object's state, which signals nothing
            await asyncio.sleep(0.001)
