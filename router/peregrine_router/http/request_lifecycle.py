"""One request from arrival to end: admitted, validated, submitted, read, measured, and given back whatever happens."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from peregrine_router.admission.limits import ConcurrencyLimit
from peregrine_router.admission.validator import PromptGroup, PromptJob, Validator
from peregrine_router.http.errors import ClientLeft, IncompleteGeneration, spec_of
from peregrine_router.interfaces import EngineClient, TokenStream
from peregrine_router.observability.metrics import Metrics
from peregrine_router.request import Cancelled, Finished, Request, Tenant, Token, TokenEvent

Batch = tuple[int, list[TokenEvent]]
"""The number of a sequence, and its tokens since the last time: more than one if the reader was late."""
MAX_BATCHES_AHEAD = 16
"""Batches of several sequences that wait to be sent together; the engine keeps the rest."""
log = logging.getLogger(__name__)


@dataclass(slots=True)
class SequenceOutput:
    """One whole sequence."""

    request: Request
    tokens: list[Token] = field(default_factory=list)
    top_tokens: list[tuple[Token, ...]] = field(default_factory=list)
    prefill: tuple[Token, ...] = ()
    finished: Finished | None = None

    def add(self, event: TokenEvent) -> None:
        """One more token."""
        self.tokens.append(event.token)
        self.top_tokens.append(event.top_tokens)
        self.prefill = event.prefill or self.prefill
        self.finished = event.finished

    @property
    def end(self) -> Finished:
        """How it ended; there is no `SequenceOutput` without that once it is collected."""
        assert self.finished is not None
        return self.finished

    @property
    def mean_logprob(self) -> float:
        """What `best_of` compares."""
        return sum(token.logprob or 0.0 for token in self.tokens) / max(len(self.tokens), 1)


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds. They are known once the request has ended."""

    total: float
    validation: float
    queue: float
    inference: float


class RequestLifecycle:
    """A request on its way through the server: `start`, then `events` or `collect`, and `close` in every case.

    As a context manager it closes itself.
    """

    def __init__(
        self,
        engine: EngineClient,
        validator: Validator,
        admission: ConcurrencyLimit,
        metrics: Metrics,
        request_id: str,
        tenant: Tenant,
        timeout: str | None,
        on_close: Callable[["RequestLifecycle"], None],
    ) -> None:
        """`timeout` is the header of that name, as it came."""
        self.request_id = request_id
        self.groups: list[PromptGroup] = []
        """One for each prompt."""
        self._engine = engine
        self._validator = validator
        self._admission = admission
        self._metrics = metrics
        self._tenant = tenant
        self._timeout = timeout
        self._on_close = on_close
        self._started = time.monotonic()
        self._queued: float | None = None
        self._permits = 0
        self._streams: list[TokenStream] = []
        self._ended: list[Finished] = []
        self._has_token = False
        self._is_settled = False
        self._is_cancelled = False
        metrics.request_count.inc()

    async def __aenter__(self) -> "RequestLifecycle":
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.close(error)

    @property
    def requests(self) -> list[Request]:
        """All sequences, prompt by prompt."""
        return [request for group in self.groups for request in group.requests]

    async def start(self, jobs: Sequence[PromptJob]) -> None:
        """Admits, validates, queues; raises what speaks against it. Before it returns, no answer has begun."""
        permits = sum(map(self._validator.num_permits, jobs))
        self._admission.acquire(permits, self._tenant.name)
        self._permits = permits
        self.groups = await self._validate(jobs)
        if self._is_cancelled:
            raise Cancelled
        for group in self.groups:
            self._streams += self._engine.submit_group(group.requests)
        self._queued = time.monotonic()

    def events(self) -> AsyncGenerator[Batch, None]:
        """Tokens as they come. IncompleteGeneration if a last token never comes."""
        return self._numbered(0) if len(self._streams) == 1 else self._merged()

    async def collect(self) -> list[list[SequenceOutput]]:
        """All sequences in full: a list for each prompt."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._collect(number)) for number in range(len(self._streams))]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        generated = iter([task.result() for task in tasks])
        return [[next(generated) for _ in group.requests] for group in self.groups]

    def cancel(self) -> None:
        """Ends every sequence; their readers get Cancelled."""
        self._is_cancelled = True
        for request in self.requests:
            self._engine.cancel(request.id)

    async def close(self, error: BaseException | None = None) -> None:
        """Cancels what still runs and gives the permits back. `error` is what ended it; None: the client left."""
        permits, self._permits = self._permits, 0
        self._admission.release(permits, self._tenant.name)
        self._on_close(self)
        if not self._is_settled:
            self._fail(error if isinstance(error, Exception) else ClientLeft())
        for stream in self._streams:
            await stream.aclose()

    @property
    def timings(self) -> Timings:
        """How long each phase took, up to now."""
        now = time.monotonic()
        queued = now if self._queued is None else self._queued
        scheduled = self._streams[0].scheduled_at if self._streams else None
        scheduled = now if scheduled is None else scheduled
        return Timings(now - self._started, queued - self._started, max(scheduled - queued, 0.0), now - scheduled)

    async def _validate(self, jobs: Sequence[PromptJob]) -> list[PromptGroup]:
        seconds = self._validator.timeout(jobs, self._timeout)
        deadline = None if seconds is None else self._started + seconds
        # Not cut short by the deadline: the template's process, which serves others, would have to be killed for it. It
        # has limits of its own, and the engine takes nothing whose time is over.
        return [await self._validator.validate(job, self._tenant, deadline) for job in jobs]

    async def _collect(self, number: int) -> SequenceOutput:
        generated = SequenceOutput(self.requests[number])
        async for _, events in self._numbered(number):
            for event in events:
                generated.add(event)
        return generated

    async def _merged(self) -> AsyncGenerator[Batch, None]:
        """The events of all sequences in the order in which they come."""
        queue: asyncio.Queue[Batch | Exception] = asyncio.Queue(MAX_BATCHES_AHEAD)

        async def forward(number: int) -> None:
            try:
                async for item in self._numbered(number):
                    await queue.put(item)
            except Exception as error:
                await queue.put(error)

        tasks = [asyncio.create_task(forward(number)) for number in range(len(self._streams))]
        remaining = len(tasks)
        try:
            while remaining:
                item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                remaining -= item[1][-1].finished is not None
                yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _numbered(self, number: int) -> AsyncGenerator[Batch, None]:
        previous: float | None = None
        stream = self._streams[number]
        while events := await stream.take():
            previous = self._measure_tokens(len(events), previous)
            finished = events[-1].finished
            if finished is not None:
                await self._record_end(finished)
                yield number, events
                return
            yield number, events
        raise IncompleteGeneration

    async def _record_end(self, finished: Finished) -> None:
        """With its last sequence the request counts as answered."""
        self._ended.append(finished)
        if len(self._ended) == len(self._streams):
            self._settle()
            # Before the client sees the end: its next request may need this one's permit.
            await self.close()

    def _settle(self) -> None:
        self._is_settled = True
        metrics, timings, request = self._metrics, self.timings, self.requests[0]
        counts = [finished.generated_tokens for finished in self._ended]
        metrics.request_success.inc()
        metrics.request_duration.observe(timings.total)
        metrics.validation_duration.observe(timings.validation)
        metrics.queue_duration.observe(timings.queue)
        metrics.inference_duration.observe(timings.inference)
        metrics.mean_time_per_token.observe(timings.inference / max(*counts, 1))
        metrics.input_length.observe(self.num_prompt_tokens)
        metrics.generated_tokens.observe(sum(counts))
        metrics.max_new_tokens.observe(request.max_new_tokens)
        self._log("done", generated_tokens=sum(counts), finish_reason=self._ended[0].reason.value)

    @property
    def num_prompt_characters(self) -> int:
        """Characters of all prompts, after templating."""
        return sum(len(group.prompt.text) for group in self.groups)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(len(group.requests[0].prompt_ids) for group in self.groups)

    @property
    def num_cached_tokens(self) -> int:
        """Of those, what earlier requests had computed: sequences of one prompt have it in common."""
        return sum(finished.cached_tokens for finished in self._ended) // len(self.groups[0].requests)

    def _measure_tokens(self, count: int, previous: float | None) -> float:
        now, latency = time.monotonic(), self._metrics.inter_token_latency
        if previous is not None:
            latency.observe(now - previous)
        elif not self._has_token:
            self._metrics.time_to_first_token.observe(now - self._started)
            self._has_token = True
        if count > 1:
            latency.observe(0.0, count - 1)
        return now

    def _fail(self, error: Exception) -> None:
        self._is_settled = True
        kind = spec_of(error)
        self._metrics.request_failure.labels(kind.label).inc()
        self._log("failed", err=kind.label)

    def _log(self, message: str, **fields: int | str) -> None:
        timings = self.timings
        durations = {
            f"{name}_ms": round(getattr(timings, name) * 1000) for name in ("total", "validation", "queue", "inference")
        }
        about = {"id": self.request_id, "input_tokens": self.num_prompt_tokens}
        log.info(message, extra={"fields": {**about, **fields, **durations}})
