"""One request from arrival to end: admitted, validated, submitted, read, measured, and given back whatever happens."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from peregrine_router.api.errors import ClientLeft, IncompleteGeneration, kind_of
from peregrine_router.api.schemas import GenerateRequest
from peregrine_router.generation import Engine, TokenStream
from peregrine_router.metrics import Metrics
from peregrine_router.request import Finished, Overloaded, Request, Token, TokenEvent
from peregrine_router.validation import Validator

log = logging.getLogger(__name__)


class Admission:
    """Counts requests in the server; full, it refuses at once."""

    def __init__(self, limit: int) -> None:
        self._free = limit

    def acquire(self, count: int) -> None:
        """Takes `count` permits or none. Raises Overloaded."""
        if count > self._free:
            raise Overloaded
        self._free -= count

    def release(self, count: int) -> None:
        """Gives them back."""
        self._free += count


@dataclass(slots=True)
class Generated:
    """One whole sequence."""

    request: Request
    tokens: list[Token] = field(default_factory=list)
    top_tokens: list[tuple[Token, ...]] = field(default_factory=list)
    prefill: tuple[Token, ...] = ()
    finished: Finished | None = None

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


class Run:
    """A request on its way through the server: `start`, then `events` or `collect`, and `close` in every case.

    As a context manager it closes itself. If `start` fails, it has closed itself already.
    """

    def __init__(self, engine: Engine, validator: Validator, admission: Admission, metrics: Metrics) -> None:
        self._engine = engine
        self._validator = validator
        self._admission = admission
        self._metrics = metrics
        self._started = time.monotonic()
        self._queued: float | None = None
        self._permits = 0
        self._streams: Sequence[TokenStream] = ()
        self._has_token = False
        self._is_settled = False
        self.requests: tuple[Request, ...] = ()
        metrics.request_count.inc()

    async def __aenter__(self) -> "Run":
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.close(error)

    async def start(self, body: GenerateRequest, max_best_of: int, *, is_stream: bool) -> None:
        """Admits, validates, queues; raises what speaks against it. Before it returns, no answer has begun."""
        try:
            self._admit(body, max_best_of)
            self.requests = await self._validator.validate(body.inputs, body.parameters, is_stream=is_stream)
            self._streams = self._engine.submit_group(self.requests)
            self._queued = time.monotonic()
        except BaseException as error:
            await self.close(error)
            raise

    def events(self) -> AsyncGenerator[TokenEvent, None]:
        """The first sequence's tokens as they come; `settle` with the last. IncompleteGeneration if that is missing."""
        return self._read(self._streams[0])

    async def collect(self) -> list[Generated]:
        """All sequences in full, the best first."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._collect(request, stream))
                    for request, stream in zip(self.requests, self._streams, strict=True)
                ]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        ranked = sorted((task.result() for task in tasks), key=lambda each: each.mean_logprob, reverse=True)
        if (finished := ranked[0].finished) is not None:
            self.settle(finished)
        return ranked

    def settle(self, finished: Finished) -> None:
        """Counts the request as answered."""
        self._is_settled = True
        metrics, timings, request = self._metrics, self.timings, self.requests[0]
        metrics.request_success.inc()
        metrics.request_duration.observe(timings.total)
        metrics.validation_duration.observe(timings.validation)
        metrics.queue_duration.observe(timings.queue)
        metrics.inference_duration.observe(timings.inference)
        metrics.mean_time_per_token.observe(timings.inference / max(finished.generated_tokens, 1))
        metrics.input_length.observe(len(request.prompt_ids))
        metrics.generated_tokens.observe(finished.generated_tokens)
        metrics.max_new_tokens.observe(request.max_new_tokens)
        self._log("done", generated_tokens=finished.generated_tokens, finish_reason=finished.reason.value)

    async def close(self, error: BaseException | None = None) -> None:
        """Cancels what still runs and gives the permits back. `error` is what ended it; None: the client left."""
        permits, self._permits = self._permits, 0
        self._admission.release(permits)
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

    def _admit(self, body: GenerateRequest, max_best_of: int) -> None:
        best_of = (body.parameters.best_of if body.parameters else None) or 1
        # A wrong best_of is for validation to refuse.
        count = best_of if best_of <= max_best_of else 1
        self._admission.acquire(count)
        self._permits = count

    async def _collect(self, request: Request, stream: TokenStream) -> Generated:
        generated = Generated(request)
        async for event in self._read(stream):
            generated.tokens.append(event.token)
            generated.top_tokens.append(event.top_tokens)
            generated.prefill = event.prefill or generated.prefill
            generated.finished = event.finished
        return generated

    async def _read(self, stream: TokenStream) -> AsyncGenerator[TokenEvent, None]:
        previous: float | None = None
        async for event in stream:
            previous = self._measure_token(previous)
            yield event
            if event.finished is not None:
                return
        raise IncompleteGeneration

    def _measure_token(self, previous: float | None) -> float:
        now = time.monotonic()
        if previous is not None:
            self._metrics.inter_token_latency.observe(now - previous)
        elif not self._has_token:
            self._metrics.time_to_first_token.observe(now - self._started)
            self._has_token = True
        return now

    def _fail(self, error: Exception) -> None:
        self._is_settled = True
        kind = kind_of(error)
        self._metrics.request_failure.labels(kind.label).inc()
        self._log("failed", err=kind.label)

    def _log(self, message: str, **fields: int | str) -> None:
        timings = self.timings
        about = {"id": self.requests[0].id, "input_tokens": len(self.requests[0].prompt_ids)} if self.requests else {}
        durations = {
            f"{name}_ms": round(getattr(timings, name) * 1000) for name in ("total", "validation", "queue", "inference")
        }
        log.info(message, extra={"fields": {**about, **fields, **durations}})
