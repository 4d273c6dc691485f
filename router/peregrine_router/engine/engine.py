"""The step loop: schedule, send, wait, commit, deliver. One engine a server, on the router's event loop.

The plain loop does these in turn, and the shards wait while it works. The overlapped loop sends a step while another
runs, so that the shards find their next work when they are done; the router's own work then costs no time as long as it
takes less than a step.
"""

import asyncio
import math
import time
from collections.abc import Iterable
from copy import copy
from itertools import groupby

from peregrine_router.admission.limits import QueueLimit
from peregrine_router.engine.engine_stats import engine_stats
from peregrine_router.engine.open_streams import OpenStreams
from peregrine_router.engine.output_processor import OutputProcessor
from peregrine_router.engine.step_pipeline import StepPipeline
from peregrine_router.engine.step_times import StepTimes
from peregrine_router.engine.token_stream import RequestStream
from peregrine_router.interfaces import EngineStats, Shards, StepObserver
from peregrine_router.request import EngineDead, Request
from peregrine_router.scheduling.in_flight import NewToken
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.scheduling.sequence import prompt_key
from peregrine_router.scheduling.step_limits import StepBudget
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.protocol import StepResult

HEARTBEAT_SECONDS = 5.0
"""Interval of the empty steps that an idle engine sends, so that health is known and not assumed."""
STALL_SECONDS = 60.0
"""A step that takes longer makes the server unhealthy. The longest prefill chunk on a slow CPU takes a tenth of it."""
WATCH_SECONDS = 1.0
"""Interval at which the progress of steps is looked at."""
MAX_IN_FLIGHT = 2
"""Steps in flight of the overlapped loop: the one that runs and the next. More would only delay newcomers."""
SEND_AT_FRACTION = 0.8
"""Send time of the next step, as a fraction of the running step's minimum time. The rest is for scheduling, sending and
a step that is faster than any before; if the next were sent at once, newcomers would wait for a whole step more."""
SEND_MARGIN_SECONDS = 0.01
"""Safety margin: the next step is sent at least this long before the running step can end, because the router may be
waiting for a CPU core. If the whole step is shorter than this, it is sent at once."""


class Engine:
    """Owns the scheduler; the only one that talks to the shards once they are ready."""

    def __init__(
        self,
        shards: Shards,
        scheduler: Scheduler,
        tokenizer: Tokenizer,
        queue_limit: QueueLimit | None = None,
        steps: StepTimes | None = None,
        observers: Iterable[StepObserver] = (),
        *,
        overlaps: bool = True,
        mixed_step_seconds: float | None = None,
        step_timeout: float = math.inf,
        vocab_size: int = 2**31,
    ) -> None:
        """`steps`: the shards' times, by which requests that cannot meet their deadlines are dropped; a server's are
        among the `observers` as well. `mixed_step_seconds`: about how long steps take that also decode; None: no limit.
        `step_timeout`: seconds of one step after which the shards are given up. `vocab_size`: above every token's id.
        """
        self._shards = shards
        self._step_timeout = step_timeout
        self._mixed_step_seconds = mixed_step_seconds
        self._overlaps = overlaps
        self._scheduler = scheduler
        self._steps = steps or StepTimes()
        self._pipeline = StepPipeline(shards, scheduler.in_flight, observers)
        self._streams = OpenStreams(scheduler, tokenizer, queue_limit or QueueLimit(), self._steps)
        self._output = OutputProcessor(scheduler, self._streams, vocab_size)
        self._wakeup = asyncio.Event()
        shards.on_failure(self._wakeup.set)
        self._failure: Exception | None = None
        """Raised by `submit_group` once the engine has ended."""

    def submit_group(self, requests: Iterable[Request]) -> list[RequestStream]:
        """Queues requests of one tenant, all or none; a prompt that neighbours have in common is computed once.

        Raises InvalidRequest if one never fits the cache or its id is in use, Overloaded if too many wait,
        DeadlineExceeded if the time of one is over, EngineDead if the shards are gone, and the error of `stop`.
        """
        if self._failure is not None:
            raise copy(self._failure)
        requests = list(requests)
        self._streams.check(requests)
        streams: list[RequestStream] = []
        try:
            for _, group in groupby(requests, key=prompt_key):
                streams += self._streams.open(list(group))
        except Exception:
            for stream in streams:
                self.cancel(stream.sequence.request.id)
            raise
        self._wakeup.set()
        return streams

    def cancel(self, request_id: str) -> bool:
        """Ends a request without another token; its reader gets `Cancelled`. False if it has ended or never was."""
        return self._streams.cancel(request_id)

    def stop(self, error: Exception) -> None:
        """Ends every request with `error`, and refuses others with it."""
        self._failure = self._failure or error
        self._streams.end_all(error)

    @property
    def is_healthy(self) -> bool:
        """Whether the shards live and answer: the step they work on is not overdue."""
        if self._failure is not None or self._pipeline.failure is not None or not self._shards.is_responsive:
            return False
        started_at = self._pipeline.started_at
        return started_at is None or time.monotonic() - started_at < STALL_SECONDS

    @property
    def stats(self) -> EngineStats:
        """The gauges and counters of this moment."""
        started_at = self._pipeline.started_at
        return engine_stats(self._scheduler, 0.0 if started_at is None else time.monotonic() - started_at)

    async def run(self) -> None:
        """Steps for as long as the shards live. Fails every request before it raises, so that none hangs."""
        turn = self._overlapped_turn if self._overlaps else self._plain_turn
        watching = asyncio.create_task(self._watch_progress())
        try:
            while True:
                await turn()
        except Exception:
            self._failure = EngineDead("the server has failed: send the request again")
            self._streams.fail_all(self._failure)
            raise
        finally:
            watching.cancel()
            self._pipeline.close()

    async def _watch_progress(self) -> None:
        """Gives the shards up when one step takes longer than `step_timeout`, by turns of this loop: if the router
        itself was stopped for an hour, no step is to blame."""
        oldest, seconds = None, 0.0
        while seconds < self._step_timeout:
            await asyncio.sleep(WATCH_SECONDS)
            was, oldest = oldest, self._pipeline.oldest
            seconds = seconds + WATCH_SECONDS if oldest is not None and oldest is was else 0.0
        self._shards.give_up(f"the shards did not finish a step in {seconds:.0f} s (ten times --shard-timeout)")

    async def _plain_turn(self) -> None:
        """Sends a step only when the last one's tokens are back."""
        if await self._send_next() or await self._send_heartbeat():
            self._deliver(*await self._take_result())

    async def _overlapped_turn(self) -> None:
        """Sends the next step before the running one's tokens are back, but late, so that newcomers can join it."""
        pipeline = self._pipeline
        if pipeline.num_in_flight < MAX_IN_FLIGHT:
            await self._wait_until_send_time()
            if await self._send_next() and pipeline.num_in_flight < MAX_IN_FLIGHT:
                return
        if pipeline.num_in_flight or await self._send_heartbeat():
            result, tokens = await self._take_result()
            if self._is_step_time_short:
                # Delivery can take a third of such a step: 3 of 7 ms for 256 streams of Falcon-7B on an H200.
                await self._send_next()
            self._deliver(result, tokens)

    async def _wait_until_send_time(self) -> None:
        """Waits until the next step is to be sent, or the running one has ended before that."""
        if self._pipeline.num_in_flight != 1 or self._is_step_time_short:
            return
        started_at = self._pipeline.started_at
        assert started_at is not None, "a step is in flight"
        least = self._steps.lower_bound(self._pipeline.num_tokens_sent)
        send_at = started_at + min(SEND_AT_FRACTION * least, least - SEND_MARGIN_SECONDS)
        if (delay := send_at - time.monotonic()) > 0.0:
            with self._pipeline.timing("wait"):
                await self._pipeline.wait(delay)

    @property
    def _is_step_time_short(self) -> bool:
        return self._steps.max_lower_bound < SEND_MARGIN_SECONDS

    async def _send_next(self) -> bool:
        """Schedules and sends a step. False if there is none."""
        self._streams.drop_unmeetable()
        with self._pipeline.timing("schedule"):
            step = self._scheduler.schedule(self._budget())
            if step is None:
                return False
            self._output.record_scheduled(step)
            await self._pipeline.send(step)
        return True

    def _budget(self) -> StepBudget:
        """The size of the next step, by the times of those before it."""
        most, seconds = self._scheduler.max_step_tokens, self._mixed_step_seconds
        count = None if seconds is None else self._steps.num_within(seconds)
        return StepBudget(most, most if count is None else min(count, most))

    async def _send_heartbeat(self) -> bool:
        """Waits for a request; sends a step without work if none comes, so that health is known. False if one came.
        Raises the failure of the shards."""
        self._wakeup.clear()
        if self._pipeline.failure is None:
            try:
                await asyncio.wait_for(self._wakeup.wait(), HEARTBEAT_SECONDS)
            except TimeoutError:
                await self._pipeline.send(self._scheduler.heartbeat())
                return True
        if self._pipeline.failure is not None:
            raise self._pipeline.failure
        return False

    async def _take_result(self) -> tuple[StepResult, list[NewToken]]:
        """Waits for the result of the oldest step in flight; its tokens are committed, and then to be delivered."""
        with self._pipeline.timing("wait"):
            result = await self._pipeline.receive()
        return result, self._output.commit(result)

    def _deliver(self, result: StepResult, tokens: list[NewToken]) -> None:
        with self._pipeline.timing("deliver"):
            self._output.deliver(result, tokens)
