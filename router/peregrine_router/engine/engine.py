"""The step loop: schedule, send, wait, commit, deliver. One engine a server, on the router's event loop.

Plain, it does these in turn, and the shards wait while it works. Overlapped, it sends a step while another runs, so
that the shards find their next work when they are done; what the router does then costs no time as long as it takes
less than a step.
"""

import asyncio
import time
from collections.abc import Iterable
from functools import partial
from itertools import groupby

from peregrine_router.admission.limits import QueueLimit
from peregrine_router.engine.deadlines import Deadlines
from peregrine_router.engine.output_batching import Delivery
from peregrine_router.engine.step_times import StepTimes, num_tokens
from peregrine_router.engine.token_stream import RequestStream
from peregrine_router.interfaces import EngineStats, Shards
from peregrine_router.request import (
    Cancelled,
    FinishReason,
    GenerationFailed,
    InvalidRequest,
    Request,
)
from peregrine_router.scheduling.in_flight import NewToken
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.scheduling.step_limits import StepBudget
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.protocol import (
    PromptLogprobs,
    SequenceFailed,
    Step,
    StepResult,
    TopTokens,
    unpack_floats,
)

HEARTBEAT_SECONDS = 5.0
"""An idle engine sends an empty step this often, so that health is known and not assumed."""
STALL_SECONDS = 60.0
"""A step that takes longer makes the server unhealthy. The longest prefill chunk on a slow CPU takes a tenth of it."""
MAX_IN_FLIGHT = 2
"""Steps of the overlapped loop: the one that runs and the one that follows. More would only delay who joins."""
SEND_AT_FRACTION = 0.8
"""When the next step is sent, as a part of the least time that the one that runs can take. The rest is for deciding,
sending and a step that is faster than any before; sent at once, newcomers would wait for a whole step more."""
SEND_MARGIN_SECONDS = 0.01
"""Of it, what is left in any case: this process may have to wait for its core. Steps so short are sent at once."""
MAX_UNREAD_EVENTS = 1024
"""A reader that leaves more tokens lying is cancelled: a client that does not read must not fill the memory."""


class Engine:
    """Owns the scheduler; the only one that talks to the shards once they are ready."""

    def __init__(
        self,
        shards: Shards,
        scheduler: Scheduler,
        tokenizer: Tokenizer,
        queue_limit: QueueLimit | None = None,
        steps: StepTimes | None = None,
        *,
        overlaps: bool = True,
        mixed_step_seconds: float | None = None,
    ) -> None:
        """`steps` are the shards' times; without them every request whose time is not over is begun.

        Where answers are being generated, prompts are computed in steps of about `mixed_step_seconds`; None: no limit.
        """
        self._mixed_step_seconds = mixed_step_seconds
        self._shards = shards
        self._overlaps = overlaps
        self._scheduler = scheduler
        self._tokenizer = tokenizer
        self._delivery = Delivery()
        self._queue_limit = queue_limit or QueueLimit()
        self._steps = steps or StepTimes()
        self._deadlines = Deadlines(self._end, self._steps)
        self._streams: dict[str, RequestStream] = {}
        self._wakeup = asyncio.Event()
        self._failure: Exception | None = None
        self._num_in_flight = 0
        self._num_tokens_sent = 0
        """Of the last step sent."""
        self._step_started: float | None = None
        """When the shards could begin the oldest step in flight."""
        self._answer: asyncio.Task[StepResult] | None = None
        """Of that step, if it is waited for beside a clock."""

    def submit(self, request: Request) -> RequestStream:
        """Queues a request. InvalidRequest if it never fits the cache or its id is in use, Overloaded if too many wait,
        DeadlineExceeded if its time is over, GenerationFailed if the shards are gone."""
        (stream,) = self.submit_group([request])
        return stream

    def submit_group(self, requests: Iterable[Request]) -> list[RequestStream]:
        """Queues requests of one tenant; the prompt that neighbours have in common is computed once.

        All or none: raises as `submit` does.
        """
        if self._failure is not None:
            raise GenerationFailed(str(self._failure))
        requests = list(requests)
        self._deadlines.check(requests)
        waiting = [sequence.request for sequence in self._scheduler.waiting_sequences()]
        self._queue_limit.check(requests, waiting, self._scheduler.num_free_slots)
        streams: list[RequestStream] = []
        try:
            for _, group in groupby(requests, key=_prompt):
                streams += self._submit(list(group))
        except Exception:
            for stream in streams:
                self.cancel(stream.sequence.request.id)
            raise
        self._wakeup.set()
        return streams

    def cancel(self, request_id: str) -> bool:
        """Ends a request without another token; its reader gets `Cancelled`. False if it has ended or never was."""
        return self._end(request_id, Cancelled("the request was cancelled"))

    @property
    def is_healthy(self) -> bool:
        """Whether the shards live and answer: the step they work on is not overdue."""
        if self._failure is not None or self._shards.failure is not None:
            return False
        return self._step_started is None or time.monotonic() - self._step_started < STALL_SECONDS

    @property
    def stats(self) -> EngineStats:
        """Gauges of this moment."""
        return EngineStats(
            queue_size=self._scheduler.num_waiting,
            batch_size=len(self._scheduler.running),
            kv_blocks_used=self._scheduler.pool.num_used,
            kv_blocks_cached=self._scheduler.pool.num_idle,
            kv_blocks_total=self._scheduler.pool.num_blocks,
            preemptions=self._scheduler.num_preemptions,
            cached_tokens=self._scheduler.prefixes.num_cached_tokens,
            draft_tokens=self._scheduler.speculation.num_draft_tokens,
            accepted_tokens=self._scheduler.speculation.num_accepted,
        )

    async def run(self) -> None:
        """Steps for as long as the shards live. Whatever ends it fails every request first, so that none hangs."""
        turn = self._overlapped_turn if self._overlaps else self._plain_turn
        try:
            while True:
                await turn()
        except Exception as error:
            self._fail(error)
            raise
        finally:
            if self._answer is not None:
                self._answer.cancel()

    async def _plain_turn(self) -> None:
        """Nothing is sent before the last step's tokens are back."""
        if await self._send_next() or await self._send_heartbeat():
            self._deliver_all(*await self._take_answer())

    async def _overlapped_turn(self) -> None:
        """Sends the next step before the running one's tokens are back, but late, so that newcomers can join it."""
        if self._num_in_flight < MAX_IN_FLIGHT:
            await self._wait_until_send_time()
            if await self._send_next() and self._num_in_flight < MAX_IN_FLIGHT:
                return
        if self._num_in_flight or await self._send_heartbeat():
            result, tokens = await self._take_answer()
            if self._is_step_time_short:
                # Delivery can take a third of such a step: 3 of 7 ms for 256 streams of Falcon-7B on an H200.
                await self._send_next()
            self._deliver_all(result, tokens)

    async def _wait_until_send_time(self) -> None:
        """Or until the step is done, where it is faster than was expected."""
        if self._num_in_flight != 1 or self._step_started is None or self._is_step_time_short:
            return
        least = self._steps.lower_bound(self._num_tokens_sent)
        send_at = self._step_started + min(SEND_AT_FRACTION * least, least - SEND_MARGIN_SECONDS)
        if (delay := send_at - time.monotonic()) > 0.0:
            self._answer = self._answer or asyncio.create_task(self._shards.receive())
            await asyncio.wait([self._answer], timeout=delay)

    @property
    def _is_step_time_short(self) -> bool:
        return self._steps.max_lower_bound < SEND_MARGIN_SECONDS

    async def _send_next(self) -> bool:
        """Schedules and sends a step. False if there is none."""
        self._drop_unmeetable()
        step = self._scheduler.schedule(self._budget())
        if step is None:
            return False
        self._record_start(step)
        await self._send(step)
        return True

    async def _send_heartbeat(self) -> bool:
        """Waits for a request; sends a step without work if none comes, so that health is known. False if one came."""
        self._wakeup.clear()
        try:
            await asyncio.wait_for(self._wakeup.wait(), HEARTBEAT_SECONDS)
        except TimeoutError:
            await self._send(self._scheduler.heartbeat())
            return True
        return False

    async def _send(self, step: Step) -> None:
        if self._num_in_flight == 0:
            self._step_started = time.monotonic()
        self._num_in_flight += 1
        self._num_tokens_sent = num_tokens(step)
        await self._shards.send(step)

    async def _take_answer(self) -> tuple[StepResult, list[NewToken]]:
        """Commits the tokens of the oldest step in flight, which are then to be delivered."""
        result = await (self._answer or self._shards.receive())
        self._answer = None
        self._num_in_flight -= 1
        self._step_started = time.monotonic() if self._num_in_flight else None
        self._take_failures(result.failed)
        self._take_prompt_logprobs(result.prompt_logprobs)
        self._delivery.start_step()
        return result, self._scheduler.commit(result)

    def _deliver_all(self, result: StepResult, tokens: list[NewToken]) -> None:
        top_tokens = {top.row: top for top in result.top_tokens} if result.top_tokens else {}
        for committed in tokens:
            stream = self._streams.get(committed.sequence.request.id)
            # Since they were committed a request may have ended, and its id be another's.
            if stream is not None and stream.sequence is committed.sequence:
                self._deliver(stream, committed, top_tokens.get(committed.row))
        self._delivery.end_step()

    def _submit(self, group: list[Request]) -> list[RequestStream]:
        ids = {request.id for request in group}
        if len(ids) < len(group) or ids & self._streams.keys():
            raise InvalidRequest(f"request id {group[0].id} is in use: send another, or none")
        try:
            sequences = self._scheduler.submit_group(group)
        except ValueError as error:
            raise InvalidRequest(str(error)) from error
        prompt_logprobs: list[float | None] = [None] * len(group[0].prompt_ids)
        streams = [RequestStream(self.cancel, sequence, self._tokenizer, prompt_logprobs) for sequence in sequences]
        for stream in streams:
            self._remember(stream)
        return streams

    def _remember(self, stream: RequestStream) -> None:
        request = stream.sequence.request
        self._streams[request.id] = stream
        self._queue_limit.begin()
        self._deadlines.watch(request)

    def _forget(self, request_id: str) -> RequestStream | None:
        stream = self._streams.pop(request_id, None)
        if stream is not None:
            request = stream.sequence.request
            self._queue_limit.end(request)
            self._deadlines.forget(request)
        return stream

    def _budget(self) -> StepBudget:
        """The size of the next step, by the times of those before it."""
        most, seconds = self._scheduler.max_step_tokens, self._mixed_step_seconds
        count = None if seconds is None else self._steps.num_within(seconds)
        return StepBudget(most, most if count is None else min(count, most))

    def _drop_unmeetable(self) -> None:
        if self._deadlines.are_none:
            return
        waiting = self._scheduler.waiting_sequences()
        max_step_tokens = self._scheduler.max_step_tokens
        count = self._scheduler.prefixes.num_to_compute
        self._deadlines.drop_unmeetable(((each.request, partial(count, each)) for each in waiting), max_step_tokens)

    def _end(self, request_id: str, error: Exception) -> bool:
        """The request's last event is `error`; its blocks are free from the next step on."""
        stream = self._forget(request_id)
        if stream is None:
            return False
        self._scheduler.cancel(stream.sequence)
        stream.events.fail(error)
        return True

    def _in_flight(self, slot: int) -> RequestStream | None:
        """Whose tokens the oldest step in flight computes in `slot`; None if it was cancelled since."""
        sequence = self._scheduler.in_flight().get(slot)
        return None if sequence is None else self._streams.get(sequence.request.id)

    def _record_start(self, step: Step) -> None:
        if not step.new and not step.forks:
            return
        now, running = time.monotonic(), self._scheduler.in_flight(-1)
        for slot in [new.slot for new in step.new] + [fork.slot for fork in step.forks]:
            stream = self._streams[running[slot].request.id]
            if stream.scheduled_at is None:
                stream.scheduled_at = now

    def _take_failures(self, failures: list[SequenceFailed]) -> None:
        for failure in failures:
            if (stream := self._in_flight(failure.slot)) is not None:
                self._end(stream.sequence.request.id, GenerationFailed(failure.message))

    def _take_prompt_logprobs(self, chunks: list[PromptLogprobs]) -> None:
        for chunk in chunks:
            if (stream := self._in_flight(chunk.slot)) is not None:
                values = unpack_floats(chunk.logprobs).tolist()
                stream.prompt_logprobs[chunk.start : chunk.start + len(values)] = values

    def _deliver(self, stream: RequestStream, committed: NewToken, top: TopTokens | None) -> None:
        text, request_id = stream.text, committed.sequence.request.id
        if len(stream.events.items) >= MAX_UNREAD_EVENTS:
            message = f"the client reads too slowly: {MAX_UNREAD_EVENTS} tokens wait for it"
            self._end(request_id, GenerationFailed(message))
            return
        delta = text.push(committed.token_id)
        if text.matched is not None and committed.finish_reason is None:
            # Of the tokens of one step, those behind the match are not the answer's, whatever they end.
            self._scheduler.finish(committed.sequence, FinishReason.STOP_SEQUENCE, committed.index)
            committed.finish_reason = FinishReason.STOP_SEQUENCE
        if committed.finish_reason is not None:
            delta += text.flush()
            self._forget(request_id)
        self._delivery.put(stream.events, stream.event(committed, delta, top))

    def _fail(self, error: Exception) -> None:
        self._failure = error
        for request_id, stream in list(self._streams.items()):
            stream.events.fail(GenerationFailed(str(error)))
            self._forget(request_id)


def _prompt(request: Request) -> tuple[tuple[int, ...], bool, bytes]:
    """What requests must have in common for one computation of the prompt to serve them all."""
    return request.prompt_ids, request.sampling.prompt_logprobs, request.cache_salt
