"""From a step's result to the streams of its sequences."""

import time

from peregrine_router.engine.open_streams import OpenStreams
from peregrine_router.engine.output_batching import OutputBatcher
from peregrine_router.engine.result_check import check_result
from peregrine_router.engine.token_stream import RequestStream
from peregrine_router.request import FinishReason, GenerationFailed, ShardFault
from peregrine_router.scheduling.in_flight import NewToken
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_server.protocol import PromptLogprobs, SequenceFailed, Step, StepResult, TopTokens

MAX_UNREAD_EVENTS = 1024
"""Tokens that may wait for a stream's reader. A slower reader's request is cancelled: a client that does not read must
not fill the memory."""


class OutputProcessor:
    """Commits results and turns their tokens into the events of streams."""

    def __init__(self, scheduler: Scheduler, streams: OpenStreams, vocab_size: int) -> None:
        """`vocab_size`: above every id that the shards may sample."""
        self._vocab_size = vocab_size
        self._scheduler = scheduler
        self._streams = streams
        self._batcher = OutputBatcher()

    def record_scheduled(self, step: Step) -> None:
        """Sets `scheduled_at` of the streams whose first step this is; called before it is sent."""
        if not step.new and not step.forks:
            return
        now, sequences = time.monotonic(), self._scheduler.in_flight[-1].sequences
        for slot in [new.slot for new in step.new] + [fork.slot for fork in step.forks]:
            stream = self._streams.by_id[sequences[slot].request.id]
            if stream.scheduled_at is None:
                stream.scheduled_at = now

    def commit(self, result: StepResult) -> list[NewToken]:
        """Ends the sequences that failed, keeps log-probabilities of prompts, and commits the tokens of the oldest step
        in flight, which are then to be delivered. Raises WrongResult or ValueError if the result is not that step's."""
        if result.id == self._scheduler.in_flight[0].step.id:  # otherwise the scheduler refuses it
            check_result(self._scheduler.in_flight[0], result, self._vocab_size)
        self._fail(result.failed)
        self._keep_prompt_logprobs(result.prompt_logprobs)
        self._batcher.start_step()
        return self._scheduler.commit(result)

    def deliver(self, result: StepResult, tokens: list[NewToken]) -> None:
        """Puts the committed tokens of a result into their streams."""
        top_tokens = {top.row: top for top in result.top_tokens} if result.top_tokens else {}
        streams = self._streams.by_id
        for token in tokens:
            stream = streams.get(token.sequence.request.id)
            # As `OpenStreams.find`, without a call for each token.
            if stream is not None and stream.sequence is token.sequence:
                self._deliver(stream, token, top_tokens.get(token.row))
        self._batcher.end_step()

    def _deliver(self, stream: RequestStream, token: NewToken, top: TopTokens | None) -> None:
        text, request_id = stream.text, token.sequence.request.id
        if len(stream.events.items) >= MAX_UNREAD_EVENTS:
            message = f"the client reads too slowly: {MAX_UNREAD_EVENTS} tokens wait for it"
            self._streams.end(request_id, GenerationFailed(message))
            return
        delta = text.push(token.token_id)
        if text.matched is not None and token.finish_reason is None:
            # Of the tokens of one step, those behind the match are not the answer's, whatever they end.
            self._scheduler.finish(token.sequence, FinishReason.STOP_SEQUENCE, token.index)
            token.finish_reason = FinishReason.STOP_SEQUENCE
        if token.finish_reason is not None:
            delta += text.flush()
            self._streams.close(request_id)
        self._batcher.put(stream.events, stream.event(token, delta, top))

    def _fail(self, failures: list[SequenceFailed]) -> None:
        for failure in failures:
            if (stream := self._stream_in(failure.slot)) is not None:
                error = GenerationFailed(failure.message)
                error.__cause__ = ShardFault(failure.detail) if failure.detail else None
                self._streams.end(stream.sequence.request.id, error)

    def _keep_prompt_logprobs(self, chunks: list[PromptLogprobs]) -> None:
        for chunk in chunks:
            stream = self._stream_in(chunk.slot)
            if stream is not None and stream.prompt_scores is not None:
                stream.prompt_scores.add(chunk)

    def _stream_in(self, slot: int) -> RequestStream | None:
        """The stream whose tokens the oldest step in flight computes in `slot`; None if it has ended since."""
        return self._streams.find(self._scheduler.in_flight[0].sequences.get(slot))
