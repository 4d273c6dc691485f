"""The streams of all requests that have not ended."""

from copy import copy
from functools import partial

from peregrine_router.admission.limits import QueueLimit
from peregrine_router.engine.deadlines import Deadlines
from peregrine_router.engine.prompt_scores import PromptScores
from peregrine_router.engine.step_times import StepTimes
from peregrine_router.engine.token_stream import RequestStream
from peregrine_router.request import Cancelled, InvalidRequest, Request
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.scheduling.sequence import Sequence
from peregrine_router.text.tokenizer import Tokenizer


class OpenStreams:
    """Opens and ends streams. A request's sequence, its place in the queue limit and its deadline timer begin and end
    with its stream."""

    def __init__(self, scheduler: Scheduler, tokenizer: Tokenizer, queue_limit: QueueLimit, steps: StepTimes) -> None:
        self.by_id: dict[str, RequestStream] = {}
        """By request id."""
        self._scheduler = scheduler
        self._tokenizer = tokenizer
        self._queue_limit = queue_limit
        self._deadlines = Deadlines(self.end, steps)

    def check(self, requests: list[Request]) -> None:
        """Raises DeadlineExceeded if the time of a request is over, Overloaded if too many requests wait."""
        self._deadlines.check(requests)
        waiting = [sequence.request for sequence in self._scheduler.waiting_sequences()]
        self._queue_limit.check(requests, waiting, self._scheduler.num_free_slots)

    def open(self, group: list[Request]) -> list[RequestStream]:
        """Queues requests of one prompt. Raises InvalidRequest if an id is in use or one never fits the cache."""
        ids = {request.id for request in group}
        if len(ids) < len(group) or ids & self.by_id.keys():
            raise InvalidRequest(f"request id {group[0].id} is in use: send another, or none")
        sequences = self._scheduler.submit_group(group)
        scores = PromptScores(len(group[0].prompt_ids)) if group[0].sampling.prompt_logprobs else None
        streams = [RequestStream(self.cancel, each, self._tokenizer, scores) for each in sequences]
        for stream in streams:
            request = stream.sequence.request
            self.by_id[request.id] = stream
            self._queue_limit.begin()
            self._deadlines.watch(request)
        return streams

    def find(self, sequence: Sequence | None) -> RequestStream | None:
        """The stream of a sequence; None if it has ended, or there is no sequence."""
        stream = None if sequence is None else self.by_id.get(sequence.request.id)
        # The request may have ended, and its id be another's.
        return stream if stream is not None and stream.sequence is sequence else None

    def close(self, request_id: str) -> RequestStream | None:
        """Forgets a request that has ended; None if it is not open."""
        stream = self.by_id.pop(request_id, None)
        if stream is not None:
            self._queue_limit.end(stream.sequence.request)
            self._deadlines.forget(stream.sequence.request)
        return stream

    def end(self, request_id: str, error: Exception) -> bool:
        """Ends a request with `error` as its stream's last event; its blocks are free from the next step on. False if
        it is not open."""
        stream = self.close(request_id)
        if stream is None:
            return False
        self._scheduler.cancel(stream.sequence)
        stream.events.fail(error)
        return True

    def cancel(self, request_id: str) -> bool:
        """Ends a request without another token; its reader gets `Cancelled`. False if it is not open."""
        return self.end(request_id, Cancelled("the request was cancelled"))

    def end_all(self, error: Exception) -> None:
        """Ends every open request with `error`."""
        for request_id in list(self.by_id):
            self.end(request_id, copy(error))

    def fail_all(self, error: Exception) -> None:
        """Fails every open request because the shards are gone. The scheduler, which may have failed, is left alone."""
        for request_id, stream in list(self.by_id.items()):
            stream.events.fail(copy(error))
            self.close(request_id)

    def drop_unmeetable(self) -> None:
        """Ends the waiting requests whose deadlines are too close for their next token."""
        if self._deadlines.are_none:
            return
        count = self._scheduler.prefixes.num_to_compute
        waiting = (
            (each.request, len(each.token_ids), partial(count, each)) for each in self._scheduler.waiting_sequences()
        )
        self._deadlines.drop_unmeetable(waiting, self._scheduler.max_step_tokens)
