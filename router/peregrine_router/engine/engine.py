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

from peregrine_router.admission.limits import QueueBound
from peregrine_router.engine.deadlines import Deadlines
from peregrine_router.engine.output_batching import Delivery
from peregrine_router.engine.step_times import StepTimes, num_tokens
from peregrine_router.engine.token_stream import Generation
from peregrine_router.interfaces import EngineStats, Shards
from peregrine_router.request import (
    Cancelled,
    FinishReason,
    GenerationFailed,
    InvalidRequest,
    Request,
)
from peregrine_router.scheduling.in_flight import Committed
from peregrine_router.scheduling.scheduler import Scheduler
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
LATE = 0.8
"""When the next step is sent, as a part of the least time that the one that runs can take. The rest is for deciding,
sending and a step that is faster than any before; sent at once, newcomers would wait for a whole step more."""
SLACK_SECONDS = 0.01
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
        bound: QueueBound | None = None,
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
        self._bound = bound or QueueBound()
        self._steps = steps or StepTimes()
        self._deadlines = Deadlines(self._end, self._steps)
        self._generations: dict[str, Generation] = {}
        self._wakeup = asyncio.Event()
        self._failure: Exception | None = None
        self._num_in_flight = 0
        self._num_tokens_sent = 0
        """Of the last step sent."""
        self._step_started: float | None = None
        """When the shards could begin the oldest step in flight."""
        self._answer: asyncio.Task[StepResult] | None = None
        """Of that step, if it is waited for beside a clock."""

    def submit(self, request: Request) -> Generation:
        """Queues a request. InvalidRequest if it never fits the cache or its id is in use, Overloaded if too many wait,
        DeadlineExceeded if its time is over, GenerationFailed if the shards are gone."""
        (generation,) = self.submit_group([request])
        return generation

    def submit_group(self, requests: Iterable[Request]) -> list[Generation]:
        """Queues requests of one tenant; the prompt that neighbours have in common is computed once.

        All or none: raises as `submit` does.
        """
        if self._failure is not None:
            raise GenerationFailed(str(self._failure))
        requests = list(requests)
        self._deadlines.check(requests)
        waiting = [sequence.request for sequence in self._scheduler.waiting_sequences()]
        self._bound.check(requests, waiting, self._scheduler.num_free_slots)
        generations: list[Generation] = []
        try:
            for _, group in groupby(requests, key=_prompt):
                generations += self._submit(list(group))
        except Exception:
            for generation in generations:
                self.cancel(generation.sequence.request.id)
            raise
        self._wakeup.set()
        return generations

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
            guessed_tokens=self._scheduler.speculation.num_guessed,
            guessed_right_tokens=self._scheduler.speculation.num_right,
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
        """The next step is sent before the tokens of the one that runs are back, but late: who comes before, joins."""
        if self._num_in_flight < MAX_IN_FLIGHT:
            await self._until_late()
            if await self._send_next() and self._num_in_flight < MAX_IN_FLIGHT:
                return
        if self._num_in_flight or await self._send_heartbeat():
            result, tokens = await self._take_answer()
            if self._are_steps_short:
                # Delivery can take a third of such a step: 3 of 7 ms for 256 streams of Falcon-7B on an H200.
                await self._send_next()
            self._deliver_all(result, tokens)

    async def _until_late(self) -> None:
        """Or until the step is done, where it is faster than was expected."""
        if self._num_in_flight != 1 or self._step_started is None or self._are_steps_short:
            return
        least = self._steps.at_least(self._num_tokens_sent)
        late = self._step_started + min(LATE * least, least - SLACK_SECONDS)
        if (delay := late - time.monotonic()) > 0.0:
            self._answer = self._answer or asyncio.create_task(self._shards.receive())
            await asyncio.wait([self._answer], timeout=delay)

    @property
    def _are_steps_short(self) -> bool:
        return self._steps.longest_least < SLACK_SECONDS

    async def _send_next(self) -> bool:
        """Schedules and sends a step. False if there is none."""
        self._end_hopeless()
        self._limit_mixed_steps()
        step = self._scheduler.schedule()
        if step is None:
            return False
        self._note_start(step)
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

    async def _take_answer(self) -> tuple[StepResult, list[Committed]]:
        """Commits the tokens of the oldest step in flight, which are then to be delivered."""
        result = await (self._answer or self._shards.receive())
        self._answer = None
        self._num_in_flight -= 1
        self._step_started = time.monotonic() if self._num_in_flight else None
        self._take_failures(result.failed)
        self._take_prompt_logprobs(result.prompt_logprobs)
        self._delivery.start_step()
        return result, self._scheduler.commit(result)

    def _deliver_all(self, result: StepResult, tokens: list[Committed]) -> None:
        top_tokens = {top.row: top for top in result.top_tokens} if result.top_tokens else {}
        for committed in tokens:
            generation = self._generations.get(committed.sequence.request.id)
            # Since they were committed a request may have ended, and its id be another's.
            if generation is not None and generation.sequence is committed.sequence:
                self._deliver(generation, committed, top_tokens.get(committed.row))
        self._delivery.end_step()

    def _submit(self, group: list[Request]) -> list[Generation]:
        ids = {request.id for request in group}
        if len(ids) < len(group) or ids & self._generations.keys():
            raise InvalidRequest(f"request id {group[0].id} is in use: send another, or none")
        try:
            sequences = self._scheduler.submit_group(group)
        except ValueError as error:
            raise InvalidRequest(str(error)) from error
        prompt_logprobs: list[float | None] = [None] * len(group[0].prompt_ids)
        generations = [Generation(self.cancel, sequence, self._tokenizer, prompt_logprobs) for sequence in sequences]
        for generation in generations:
            self._remember(generation)
        return generations

    def _remember(self, generation: Generation) -> None:
        request = generation.sequence.request
        self._generations[request.id] = generation
        self._bound.begin()
        self._deadlines.watch(request)

    def _forget(self, request_id: str) -> Generation | None:
        generation = self._generations.pop(request_id, None)
        if generation is not None:
            request = generation.sequence.request
            self._bound.end(request)
            self._deadlines.forget(request)
        return generation

    def _limit_mixed_steps(self) -> None:
        if self._mixed_step_seconds is None:
            return
        count = self._steps.num_within(self._mixed_step_seconds)
        if count is not None:
            self._scheduler.max_mixed_tokens = min(count, self._scheduler.max_step_tokens)

    def _end_hopeless(self) -> None:
        if self._deadlines.are_none:
            return
        waiting = self._scheduler.waiting_sequences()
        max_step_tokens = self._scheduler.max_step_tokens
        count = self._scheduler.prefixes.num_to_compute
        self._deadlines.end_hopeless(((each.request, partial(count, each)) for each in waiting), max_step_tokens)

    def _end(self, request_id: str, error: Exception) -> bool:
        """The request's last event is `error`; its blocks are free from the next step on."""
        generation = self._forget(request_id)
        if generation is None:
            return False
        self._scheduler.cancel(generation.sequence)
        generation.events.fail(error)
        return True

    def _in_flight(self, slot: int) -> Generation | None:
        """Whose tokens the oldest step in flight computes in `slot`; None if it was cancelled since."""
        sequence = self._scheduler.in_flight().get(slot)
        return None if sequence is None else self._generations.get(sequence.request.id)

    def _note_start(self, step: Step) -> None:
        if not step.new and not step.forks:
            return
        now, running = time.monotonic(), self._scheduler.in_flight(-1)
        for slot in [new.slot for new in step.new] + [fork.slot for fork in step.forks]:
            generation = self._generations[running[slot].request.id]
            if generation.scheduled_at is None:
                generation.scheduled_at = now

    def _take_failures(self, failures: list[SequenceFailed]) -> None:
        for failure in failures:
            if (generation := self._in_flight(failure.slot)) is not None:
                self._end(generation.sequence.request.id, GenerationFailed(failure.message))

    def _take_prompt_logprobs(self, chunks: list[PromptLogprobs]) -> None:
        for chunk in chunks:
            if (generation := self._in_flight(chunk.slot)) is not None:
                values = unpack_floats(chunk.logprobs).tolist()
                generation.prompt_logprobs[chunk.start : chunk.start + len(values)] = values

    def _deliver(self, generation: Generation, committed: Committed, top: TopTokens | None) -> None:
        text, request_id = generation.text, committed.sequence.request.id
        if len(generation.events.items) >= MAX_UNREAD_EVENTS:
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
        self._delivery.put(generation.events, generation.event(committed, delta, top))

    def _fail(self, error: Exception) -> None:
        self._failure = error
        for request_id, generation in list(self._generations.items()):
            generation.events.fail(GenerationFailed(str(error)))
            self._forget(request_id)


def _prompt(request: Request) -> tuple[tuple[int, ...], bool, bytes]:
    """What requests must have in common for one computation of the prompt to serve them all."""
    return request.prompt_ids, request.sampling.prompt_logprobs, request.cache_salt
