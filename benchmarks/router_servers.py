"""The two servers of benchmarks/router.py, each a process on one core: the router on shards that answer at once, and a
bare ASGI loop that streams the same bytes."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import uvicorn
import uvloop

from peregrine_router.app import build_app
from peregrine_router.engine.engine import Engine
from peregrine_router.interfaces import ModelInfo
from peregrine_router.launch.http_protocol import BoundedHttpProtocol
from peregrine_router.launch.listener import SEND_BUFFER_BYTES
from peregrine_router.launch.model_files import demo_path
from peregrine_router.launch.server import Server
from peregrine_router.observability.log import configure_logging
from peregrine_router.observability.metrics import Metrics
from peregrine_router.observability.step_metrics import StepMetrics
from peregrine_router.observability.tracing import open_tracing
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.settings import Settings
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.models.registry import load_config
from peregrine_server.protocol import Step, StepResult, pack, unpack

MAX_STREAMS = 1024
MAX_TOTAL_TOKENS = 4096
BLOCK_SIZE = 16
STEP_TOKENS = 8192
NUM_WORDS, STRIDE = 2**16, 7919
"""Number of words, in random order, and the stride between two steps: a prime, so that all words are used."""
TEXT = (
    "The falcon waited on the wind above the valley, and when the grouse rose from the heather it folded its wings "
    "and fell: two hundred miles an hour, a sound like tearing cloth, then silence and a slow spiral of feathers. "
)
DEFAULTS = Settings(max_concurrent_requests=MAX_STREAMS)
Message = dict[str, Any]


class InstantShards:
    """Answers a step at the event loop's next turn: real words, and a log-probability where one is asked for.

    No two answers are alike, so that each of their blocks is new to the prefix cache.
    """

    failure: Exception | None = None
    is_responsive = True
    has_result = False

    def __init__(self, tokenizer: Tokenizer, step_seconds: float = 0.0) -> None:
        """`step_seconds`: time that each step takes all the same."""
        self._step_seconds = step_seconds
        random = np.random.default_rng(0)
        self._ids = random.choice(np.array(tokenizer.encode(TEXT), "<i4"), NUM_WORDS + MAX_STREAMS)
        self._logprobs = (-random.exponential(1.0, MAX_STREAMS)).astype("<f4")
        self._missing: dict[int, int] = {}
        """Slot -> prompt tokens yet to be computed."""
        self._answers: deque[StepResult] = deque()

    async def send(self, step: Step) -> None:
        """Takes a step and prepares its answer."""
        slots = step.slots if step.num_decodes * 4 == len(step.slots) else pack(self._sampled(step))
        size, at = len(slots) // 4, step.id * STRIDE % NUM_WORDS
        ids, logprobs = self._ids[at : at + size].tobytes(), self._logprobs[:size].tobytes()
        self._answers.append(StepResult(step.id, slots, ids, logprobs))

    async def receive(self) -> StepResult:
        """The answer to the oldest step."""
        await asyncio.sleep(self._step_seconds)
        return self._answers.popleft()

    def give_up(self, reason: str) -> None:
        """Does nothing: steps do not hang here."""

    def on_failure(self, call: Callable[[], object]) -> None:
        """Does nothing: these do not fail."""

    def _sampled(self, step: Step) -> list[int]:
        self._missing |= {new.slot: len(new.token_ids) // 4 - new.num_cached for new in step.new}
        slots = unpack(step.slots).tolist()
        sampled: list[int] = slots[: step.num_decodes]
        for slot, count in zip(slots[step.num_decodes :], unpack(step.num_tokens).tolist(), strict=True):
            self._missing[slot] -= count
            if not self._missing[slot]:
                sampled.append(slot)
        return sampled


class BareServer(uvicorn.Server):
    """uvicorn that a signal ends at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Does nothing."""
        yield


async def serve_router(
    listener: socket.socket, num_blocks: int, settings: Settings = DEFAULTS, step_seconds: float = 0.0
) -> None:
    """Serves the app as `peregrine serve` does, with a KV cache of `num_blocks`, and traces if
    OTLP_ENDPOINT is set."""
    tokenizer = Tokenizer.load(demo_path())
    info = ModelInfo(
        model_id="benchmark",
        model_sha=None,
        model_dtype="bfloat16",
        model_device_type="cpu",
        num_shard=1,
        max_batch_total_tokens=num_blocks * BLOCK_SIZE,
        vocab_size=load_config(demo_path()).vocab_size,
        max_input_tokens=MAX_TOTAL_TOKENS - 1,
        max_total_tokens=MAX_TOTAL_TOKENS,
    )
    scheduler = Scheduler(
        BlockPool(num_blocks, BLOCK_SIZE),
        FairPolicy(MAX_STREAMS, lead=STEP_TOKENS),
        max_batch_size=settings.max_batch_size or settings.max_concurrent_requests,
        max_step_tokens=STEP_TOKENS,
        eos_token_ids=frozenset(),
    )
    metrics = Metrics(info)
    tracing = open_tracing(settings, os.environ, info.model_id)
    observers = [StepMetrics(metrics), *([tracing.watch_steps(scheduler.in_flight)] if tracing else [])]
    engine = Engine(InstantShards(tokenizer, step_seconds), scheduler, tokenizer, observers=observers)
    tracer = tracing.tracer if tracing else None
    app = build_app(engine, tokenizer, settings, info, metrics=metrics, tracer=tracer)
    await Server(app, engine, settings, listener).run_until_stopped()


async def serve_bare(listener: socket.socket, events: list[bytes]) -> None:
    """Serves plain ASGI: each event a message of its own, with a turn of the loop between two."""

    async def app(scope: object, receive: object, send: Callable[[Message], Awaitable[None]]) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for event in events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(app, http=BoundedHttpProtocol, ws="none", lifespan="off", log_config=None, access_log=False)
    await BareServer(config).serve(sockets=[listener])


def main() -> None:
    """`python -m benchmarks.router_servers CORE BLOCKS`, the events of the bare loop on stdin, none for the router."""
    core, num_blocks = map(int, sys.argv[1:])
    os.sched_setaffinity(0, {core})
    body = sys.stdin.buffer.read()
    configure_logging(level=logging.WARNING)
    listener = socket.create_server(("127.0.0.1", 0), backlog=MAX_STREAMS)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    print(listener.getsockname()[1], flush=True)
    events = [event + b"\n\n" for event in body.split(b"\n\n") if event]
    serving = serve_bare(listener, events) if events else serve_router(listener, num_blocks)
    uvloop.run(serving)


if __name__ == "__main__":
    main()
