"""From tokens to OpenAI's chat completions."""

import time
import uuid
from collections.abc import Sequence

from peregrine_router.api.openai.completions import finish_reason, finite, usage
from peregrine_router.api.openai.schemas import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprob,
    ChatLogprobs,
    ChatRequest,
    ChunkChoice,
    FinishReason,
    ToolCallAnswer,
    TopLogprob,
)
from peregrine_router.api.openai.tools import CallReader, ToolPlan
from peregrine_router.http.errors import ErrorSpec, openai_error
from peregrine_router.http.request_lifecycle import RequestLifecycle, SequenceOutput
from peregrine_router.http.sse import DONE, encode_events
from peregrine_router.request import Finished, Token, TokenEvent
from peregrine_router.text.tokenizer import Tokenizer


class ChatAnswer:
    """The answer to one request: whole, or as the chunks of a stream."""

    def __init__(
        self,
        body: ChatRequest,
        plan: ToolPlan,
        run: RequestLifecycle,
        tokenizer: Tokenizer,
        fingerprint: str,
        model: str,
    ) -> None:
        self._body = body
        self._run = run
        self._tokenizer = tokenizer
        self._names = plan.names
        self._readers = [CallReader(plan.names) for _ in run.requests]
        self._id = f"chatcmpl-{run.requests[0].id}"
        self._created = int(time.time())
        self._fingerprint = fingerprint
        self._model = body.model or model
        self._num_generated = 0

    def whole(self, sequences: list[SequenceOutput]) -> ChatCompletion:
        """Not streamed."""
        num_generated = sum(each.end.generated_tokens for each in sequences)
        return {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "system_fingerprint": self._fingerprint,
            "choices": [self._choice(number, generated) for number, generated in enumerate(sequences)],
            "usage": usage(self._run, num_generated),
        }

    def event(self, number: int, event: TokenEvent) -> ChatChunk | None:
        """The chunk of a token; none while it is open whether the answer is text or a call."""
        delta = self._delta(self._readers[number], event)
        finished = event.finished
        if event.index == 1:
            delta = {"role": "assistant", **delta}
        if finished is not None:
            self._num_generated += finished.generated_tokens
        elif not delta and not self._body.logprobs:
            return None
        return self._chunk(
            [
                {
                    "index": number,
                    "delta": delta,
                    "logprobs": self._logprobs([event.token], [event.top_tokens]),
                    "finish_reason": self._reason(self._readers[number], finished) if finished else None,
                }
            ]
        )

    def end(self) -> bytes:
        """OpenAI's last events."""
        options = self._body.stream_options
        if options is None or not options.include_usage:
            return DONE
        return encode_events(self._chunk([]) | {"usage": usage(self._run, self._num_generated)}) + DONE

    def error(self, kind: ErrorSpec, message: str) -> object:
        """As in a body."""
        return openai_error(kind, message)

    def _delta(self, reader: CallReader, event: TokenEvent) -> AssistantMessage:
        was_named = reader.name is not None
        text, arguments = reader.push(event.text_delta)
        if event.finished is not None:
            text += reader.end()
        if reader.name is not None and not was_named:
            return {"tool_calls": [{"index": 0, **_call(reader.name, arguments)}]}
        if arguments:
            return {"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}
        return {} if self._names and not text else {"content": text}

    def _choice(self, number: int, generated: SequenceOutput) -> ChatChoice:
        reader = self._readers[number]
        text, arguments = reader.push(generated.end.generated_text)
        text += reader.end()
        message: AssistantMessage = {"role": "assistant", "content": text}
        if reader.name is not None:
            message = {"role": "assistant", "content": None, "tool_calls": [_call(reader.name, arguments)]}
        return {
            "index": number,
            "message": message,
            "logprobs": self._logprobs(generated.tokens, generated.top_tokens),
            "finish_reason": self._reason(reader, generated.end),
        }

    def _reason(self, reader: CallReader, finished: Finished) -> FinishReason:
        return "tool_calls" if reader.is_complete else finish_reason(finished)

    def _logprobs(self, tokens: Sequence[Token], tops: Sequence[tuple[Token, ...]]) -> ChatLogprobs | None:
        if not self._body.logprobs:
            return None
        return {"content": [self._logprob(token, top) for token, top in zip(tokens, tops, strict=True)]}

    def _logprob(self, token: Token, top: tuple[Token, ...]) -> ChatLogprob:
        return {**self._top(token), "top_logprobs": [self._top(each) for each in top]}

    def _top(self, token: Token) -> TopLogprob:
        text = self._tokenizer.describe(token.id).text
        return {"token": text, "logprob": finite(token.logprob), "bytes": list(self._tokenizer.token_bytes(token.id))}

    def _chunk(self, choices: list[ChunkChoice]) -> ChatChunk:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "system_fingerprint": self._fingerprint,
            "choices": choices,
        }


def _call(name: str, arguments: str) -> ToolCallAnswer:
    return {
        "id": f"call_{uuid.uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
