"""One request's tokens on their way from the steps to their reader."""

import asyncio
from collections.abc import Callable

from peregrine_router.engine.mailbox import Mailbox
from peregrine_router.engine.prompt_scores import PromptScores
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
        prompt_scores: PromptScores | None = None,
    ) -> None:
        """`cancel`: cancels the request with an id. `prompt_scores`: None unless asked for; shared by a group, the
        engine fills it in while the prompt is computed."""
        self.sequence = sequence
        request = sequence.request
        self.text = tokenizer.stream(request.stop, request.hides_stop, request.speaker_labels)
        self.events: Mailbox[TokenEvent] = Mailbox()
        self.prompt_scores = prompt_scores
        self.scheduled_at: float | None = None
        self._tokenizer = tokenizer
        self._cancel = cancel
        self._is_over = False

    async def take(self) -> list[TokenEvent]:
        """Waits for a token; all that have come since the last call. Empty once the stream is over."""
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

    def event(self, new: NewToken, delta: str, top: TopTokens | None) -> TokenEvent:
        """The event of a token that adds `delta` to the text; the last one says how the text ends."""
        token_id, logprob = new.token_id, new.logprob
        if token_id in self._tokenizer.special_ids:
            token = self._tokenizer.describe(token_id, logprob)
        else:
            token = Token(token_id, delta, logprob)
        if top is None and new.finish_reason is None and new.index > 1:
            return TokenEvent(new.index, token, delta)  # nearly every one
        scores = self.prompt_scores if new.index == 1 else None
        return TokenEvent(
            new.index,
            token,
            delta,
            self._top_tokens(top) if top else (),
            scores.tokens(self.sequence.request.prompt_ids, self._tokenizer) if scores else (),
            scores.top_tokens(self._tokenizer) if scores and self.sequence.request.sampling.top_n_tokens else (),
            self._finished(new),
        )

    def _top_tokens(self, top: TopTokens) -> tuple[Token, ...]:
        pairs = zip(unpack(top.token_ids).tolist(), unpack_floats(top.logprobs).tolist(), strict=True)
        return tuple(self._tokenizer.describe(token_id, logprob) for token_id, logprob in pairs)

    def _finished(self, new: NewToken) -> Finished | None:
        if new.finish_reason is None:
            return None
        sequence = self.sequence
        return Finished(new.finish_reason, self.text.text, sequence.num_generated, sequence.num_prefix_hit_tokens or 0)
