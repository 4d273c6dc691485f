"""One request's tokens on their way from the steps to who reads them."""

import asyncio
from collections.abc import Callable

from peregrine_router.engine.mailbox import Mailbox
from peregrine_router.request import Finished, Token, TokenEvent
from peregrine_router.scheduling.in_flight import NewToken
from peregrine_router.scheduling.sequence import Sequence
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.protocol import TopTokens, unpack, unpack_floats


class RequestStream:
    """One request's tokens as they come. Closing it, or cancelling the task that reads it, cancels the request."""

    def __init__(
        self,
        cancel: Callable[[str], bool],
        sequence: Sequence,
        tokenizer: Tokenizer,
        prompt_logprobs: list[float | None],
    ) -> None:
        """`cancel` ends the request of an id."""
        self.sequence = sequence
        self.text = tokenizer.stream(sequence.request.stop, sequence.request.hides_stop)
        self.events: Mailbox[TokenEvent] = Mailbox()
        self.prompt_logprobs = prompt_logprobs
        """Filled in while the prompt is computed; shared by a group, for which that happens once."""
        self.scheduled_at: float | None = None
        self._tokenizer = tokenizer
        self._cancel = cancel
        self._is_over = False

    async def take(self) -> list[TokenEvent]:
        """Waits for a token; all that have come since the last time. Empty once the stream is over."""
        if self._is_over:
            return []
        try:
            events = await self.events.take()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        except Exception:
            self._is_over = True
            raise
        self._is_over = events[-1].finished is not None
        return events

    async def aclose(self) -> None:
        """Cancels the request if it still runs. May be called twice."""
        self._is_over = True
        self._cancel(self.sequence.request.id)

    def event(self, committed: NewToken, delta: str, top: TopTokens | None) -> TokenEvent:
        """A token that the sequence gained, which adds `delta` to its text; the last one says how it ends."""
        token_id, logprob = committed.token_id, committed.logprob
        if token_id in self._tokenizer.special_ids:
            token = self._tokenizer.describe(token_id, logprob)
        else:
            token = Token(token_id, delta, logprob)
        if top is None and committed.finish_reason is None and committed.index > 1:
            return TokenEvent(committed.index, token, delta)  # nearly every one
        has_prefill = committed.index == 1 and self.sequence.request.sampling.prompt_logprobs
        return TokenEvent(
            committed.index,
            token,
            delta,
            self._top_tokens(top) if top else (),
            self._prefill() if has_prefill else (),
            self._finished(committed),
        )

    def _top_tokens(self, top: TopTokens) -> tuple[Token, ...]:
        pairs = zip(unpack(top.token_ids).tolist(), unpack_floats(top.logprobs).tolist(), strict=True)
        return tuple(self._tokenizer.describe(token_id, logprob) for token_id, logprob in pairs)

    def _prefill(self) -> tuple[Token, ...]:
        return tuple(map(self._tokenizer.describe, self.sequence.request.prompt_ids, self.prompt_logprobs))

    def _finished(self, committed: NewToken) -> Finished | None:
        if committed.finish_reason is None:
            return None
        sequence = self.sequence
        return Finished(
            committed.finish_reason, self.text.text, sequence.num_generated, sequence.num_prefix_hit_tokens or 0
        )
