"""One request from arrival to end: admitted, validated, queued, read, and its permits released whatever happens."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence

from peregrine_router.admission.limits import ConcurrencyLimit
from peregrine_router.admission.validator import PromptGroup, PromptJob, Validator
from peregrine_router.http.errors import spec_of
from peregrine_router.http.exceptions import ClientLeft, IncompleteGeneration
from peregrine_router.http.sequence_output import EventBatch, SequenceOutput, collect, merge
from peregrine_router.interfaces import EngineClient, TokenStream
from peregrine_router.observability.observer import RequestObservers, RequestRecord, Timings
from peregrine_router.request import Cancelled, Finished, Request, Tenant


class RequestLifecycle:
    """A request on its way through the server: `start`, then `events` or `collect`, and `close` in every case.

    As a context manager it closes itself.
    """

    def __init__(
        self,
        engine: EngineClient,
        validator: Validator,
        admission: ConcurrencyLimit,
        observers: RequestObservers,
        request_id: str,
        tenant: Tenant,
        timeout: str | None,
        on_close: Callable[["RequestLifecycle"], None],
        operation: str = "text_completion",
    ) -> None:
        """`timeout`: the value of the header of that name, unparsed. `operation`: that of the `RequestRecord`."""
        self.groups: list[PromptGroup] = []
        """One group for each prompt; empty before validation."""
        self._engine = engine
        self._validator = validator
        self._admission = admission
        self._observers = observers
        self._tenant = tenant
        self._timeout = timeout
        self._on_close = on_close
        self._record = RequestRecord(request_id, time.monotonic(), operation)
        self._permits = 0
        self._streams: list[TokenStream] = []
        self._is_cancelled = False
        observers.arrived(self._record)

    async def __aenter__(self) -> "RequestLifecycle":
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.close(error)

    @property
    def requests(self) -> tuple[Request, ...]:
        """All sequences, prompt by prompt."""
        return self._record.requests

    async def start(self, jobs: Sequence[PromptJob]) -> None:
        """Admits, validates and queues the request. Raises the error to answer with; no byte is sent before it returns.

        Raises Overloaded, InvalidRequest, TemplateError, TemplateProcessDied, Cancelled or GenerationFailed.
        """
        permits = sum(map(self._validator.num_permits, jobs))
        self._admission.acquire(permits, self._tenant.name)
        self._permits = permits
        self.groups = await self._validate(jobs)
        self._record.requests = tuple(request for group in self.groups for request in group.requests)
        self._record.prompts = tuple(group.prompt.text for group in self.groups)
        self._record.num_prompt_tokens = self.num_prompt_tokens
        self._record.num_choices = len(self.groups[0].requests) if self.groups else 1
        self._observers.validated(self._record)
        if self._is_cancelled:
            raise Cancelled
        for group in self.groups:
            self._streams += self._engine.submit_group(group.requests)
        self._record.queued_at = time.monotonic()
        self._observers.queued(self._record)

    def events(self) -> AsyncGenerator[EventBatch, None]:
        """Tokens as they come. Raises IncompleteGeneration if a sequence's last token never comes."""
        sources = [self._read(number) for number in range(len(self._streams))]
        return sources[0] if len(sources) == 1 else merge(sources)

    async def collect(self) -> list[list[SequenceOutput]]:
        """All sequences in full: a list for each prompt."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(collect(request, self._read(number)))
                    for number, request in enumerate(self.requests)
                ]
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            raise first from first.__cause__
        outputs = iter([task.result() for task in tasks])
        return [[next(outputs) for _ in group.requests] for group in self.groups]

    def cancel(self) -> None:
        """Ends every sequence; their readers get Cancelled."""
        self._is_cancelled = True
        for request in self.requests:
            self._engine.cancel(request.id)

    async def close(self, error: BaseException | None = None) -> None:
        """Cancels running sequences and releases the permits. `error`: why it ended; None if the client left.

        May be called twice; the first end counts.
        """
        permits, self._permits = self._permits, 0
        self._admission.release(permits, self._tenant.name)
        self._on_close(self)
        if self._record.ended_at is None:
            error = error if isinstance(error, Exception) else ClientLeft()
            self._end()
            self._observers.failed(self._record, error, spec_of(error).label)
        for stream in self._streams:
            await stream.aclose()

    @property
    def timings(self) -> Timings:
        """Seconds of each phase, up to now."""
        self._record.scheduled_at = self._scheduled_at
        return self._record.timings(time.monotonic())

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
        """Prompt tokens found in the prefix cache."""
        return self._record.num_cached_tokens

    @property
    def dropped_keywords(self) -> tuple[str, ...]:
        """Keywords of the client's schemas that the grammars do not hold."""
        return tuple(dict.fromkeys(keyword for group in self.groups for keyword in group.dropped))

    @property
    def _scheduled_at(self) -> float | None:
        return self._streams[0].scheduled_at if self._streams else None

    async def _validate(self, jobs: Sequence[PromptJob]) -> list[PromptGroup]:
        seconds = self._validator.timeout(jobs, self._timeout)
        deadline = None if seconds is None else self._record.arrived_at + seconds
        # The deadline does not interrupt validation: that would mean killing the template process, which serves other
        # requests too. The process has limits of its own, and the engine refuses a request whose deadline has passed.
        return [await self._validator.validate(job, self._tenant, deadline) for job in jobs]

    async def _read(self, number: int) -> AsyncGenerator[EventBatch, None]:
        """Batches of one sequence, each reported to the observers."""
        stream, record, observe, clock = self._streams[number], self._record, self._observers.tokens, time.monotonic
        previous: float | None = None
        while events := await stream.take():
            now = clock()
            if previous is None:
                self._report_first_token(now)
                observe(record, len(events), None)
            else:
                observe(record, len(events), now - previous)
            previous = now
            finished = events[-1].finished
            if finished is not None:
                await self._record_end(finished)
                yield number, events
                return
            yield number, events
        raise IncompleteGeneration

    def _report_first_token(self, now: float) -> None:
        """Reports a sequence's first token if it is the request's first."""
        if self._record.first_token_at is None:
            self._record.first_token_at = now
            self._record.scheduled_at = self._scheduled_at
            self._observers.first_token(self._record, now)

    async def _record_end(self, finished: Finished) -> None:
        """Counts the request as answered with the end of its last sequence."""
        self._record.finished.append(finished)
        if len(self._record.finished) == len(self._streams):
            self._end()
            self._observers.answered(self._record)
            # Before the client sees the end: its next request may need this one's permit.
            await self.close()

    def _end(self) -> None:
        self._record.scheduled_at = self._scheduled_at
        self._record.ended_at = time.monotonic()
