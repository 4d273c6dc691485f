"""One API key floods the server; what another sees of it. Real HTTP, engine and scheduler; shards that only wait."""

import asyncio
import contextlib
import random
import socket
import statistics
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest
import uvicorn

from fake_shards import LivingShards
from fakes import INFO, make_tokenizer
from peregrine_router.app import build_app
from peregrine_router.engine.engine import Engine
from peregrine_router.engine.step_times import StepTimes
from peregrine_router.launch.http_protocol import BoundedHttpProtocol
from peregrine_router.observability.metrics import Metrics
from peregrine_router.observability.step_metrics import StepMetrics
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.settings import Settings
from peregrine_server.protocol import Step, StepResult, pack, unpack

pytestmark = [pytest.mark.slow, pytest.mark.alone]

STEP_SECONDS = 0.06
NUM_FLOOD = 200
NUM_ASKED = 11
ROOMY = replace(INFO, max_input_tokens=500, max_total_tokens=600)


class PacedShards(LivingShards):
    """Every step takes as long, and every sequence says the same token."""

    def __init__(self) -> None:
        self._missing: dict[int, int] = {}
        """Tokens of the prompt that are not computed yet, by slot."""
        self._results: deque[StepResult] = deque()
        self._sent: deque[float] = deque()
        self._ready = 0.0

    async def send(self, step: Step) -> None:
        """Keeps the answer."""
        self._sent.append(time.monotonic())
        for new in step.new:
            self._missing[new.slot] = len(unpack(new.token_ids)) - new.num_cached
        slots = unpack(step.slots).tolist()
        counts = [1] * step.num_decodes + unpack(step.num_tokens).tolist()
        for slot, count in zip(slots, counts, strict=True):
            self._missing[slot] = max(self._missing[slot] - count, 0)
        sampled = [slot for slot in slots if not self._missing[slot]]
        logprobs = pack([]) if not sampled else b"\0\0\0\0" * len(sampled)
        self._results.append(StepResult(step.id, pack(sampled), pack([65] * len(sampled)), logprobs))

    async def receive(self) -> StepResult:
        """The oldest answer, a step's time after it and the one before were there."""
        ready = max(self._sent.popleft(), self._ready) + STEP_SECONDS
        await asyncio.sleep(max(ready - time.monotonic(), 0.0))
        self._ready = ready
        return self._results.popleft()


@contextlib.asynccontextmanager
async def serving(num_blocks: int, **options: Any) -> AsyncIterator[str]:
    """The URL of a server with two keys."""
    settings = Settings(api_key=("noisy", "quiet"), **options)
    tokenizer = make_tokenizer()
    scheduler = Scheduler(
        BlockPool(num_blocks, 16),
        FairPolicy(settings.max_batch_size or settings.max_concurrent_requests, lead=512),
        max_batch_size=settings.max_batch_size or settings.max_concurrent_requests,
        max_step_tokens=512,
        eos_token_ids=frozenset({0}),
    )
    metrics = Metrics(ROOMY)
    times = StepTimes()
    engine = Engine(PacedShards(), scheduler, tokenizer, steps=times, observers=[times, StepMetrics(metrics)])
    app = build_app(engine, tokenizer, settings, ROOMY, metrics=metrics)
    config = uvicorn.Config(
        app, http=BoundedHttpProtocol, log_config=None, access_log=False, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tasks = [asyncio.create_task(engine.run()), asyncio.create_task(server.serve(sockets=[listener]))]
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await tasks[1]
            tasks[0].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def client(url: str, key: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"}, limits=limits, timeout=20)


async def seconds_to_first_token(quiet: httpx.AsyncClient, pauses: Sequence[float]) -> float:
    """The median of some requests, one after the other."""
    seen = []
    for pause in pauses:
        await asyncio.sleep(pause)
        started = time.monotonic()
        body = {"inputs": "falcons dive", "parameters": {"max_new_tokens": 2}}
        async with quiet.stream("POST", "/generate_stream", json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    seen.append(time.monotonic() - started)
                    break
    return statistics.median(seen)


async def arrived(quiet: httpx.AsyncClient, flood: Sequence["asyncio.Task[httpx.Response]"]) -> None:
    """Waits until the server has every request of the flood, or has refused it: accepting them all takes its time."""
    gauges = ("tgi_queue_size ", "tgi_batch_current_size ")
    async with asyncio.timeout(20):
        known = 0.0
        while known + sum(task.done() for task in flood) < len(flood):
            await asyncio.sleep(STEP_SECONDS)
            lines = (await quiet.get("/metrics")).text.splitlines()
            known = sum(float(line.split()[1]) for line in lines if line.startswith(gauges))


@pytest.mark.parametrize(
    ("options", "num_blocks"),
    [
        ({}, 8000),
        ({"max_concurrent_requests": 256, "max_batch_size": 32}, 4000),
        ({"max_concurrent_requests": 256, "max_batch_size": 128}, 400),
    ],
    ids=["places are scarce", "slots are scarce", "blocks are scarce"],
)
async def test_a_flood_of_one_key_does_not_double_the_wait_of_another(options: dict[str, int], num_blocks: int) -> None:
    """200 requests of one key at once: another key's median time to first token stays below twice what it is alone."""
    source = random.Random(5)
    # Any moment of a step is as likely: the first token of a lone request ends a step, and the next would begin there.
    pauses = [source.uniform(0, 2 * STEP_SECONDS) for _ in range(NUM_ASKED)]
    async with serving(num_blocks, **options) as url, client(url, "noisy") as noisy, client(url, "quiet") as quiet:
        alone = await seconds_to_first_token(quiet, pauses)
        body = {"inputs": "the quick brown fox " * 20, "parameters": {"max_new_tokens": 400, "ignore_eos": True}}
        flood = [asyncio.create_task(noisy.post("/generate", json=body)) for _ in range(NUM_FLOOD)]
        await arrived(quiet, flood)
        flooded = await seconds_to_first_token(quiet, pauses)
        statuses = {task.result().status_code for task in flood if task.done()}
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
    assert statuses <= {429}, "the flood was over before it was observed"
    assert flooded < 2 * alone
