"""Chat completions: tokens as OpenAI's JSON, either text or tool calls."""

import uuid
from collections.abc import Sequence

from peregrine_router.api.openai.answer import OpenAiAnswer, finish_reason, finite
from peregrine_router.api.openai.answer_schemas import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprob,
    ChatLogprobs,
    ChunkChoice,
    FinishReason,
    ToolCallAnswer,
    TopLogprob,
)
from peregrine_router.api.openai.schemas import ChatRequest
from peregrine_router.api.openai.tools import CallReader, ToolPlan
from peregrine_router.http.request_lifecycle import RequestLifecycle
from peregrine_router.http.sequence_output import SequenceOutput
from peregrine_router.request import Finished, Token, TokenEvent
from peregrine_router.text.tokenizer import Tokenizer


class ChatAnswer(OpenAiAnswer):
    """The answer to one request: whole, or as the chunks of a stream."""

    id_prefix = "chatcmpl"
    stream_object = "chat.completion.chunk"

    def __init__(
        self, body: ChatRequest, plan: ToolPlan, lifecycle: RequestLifecycle, tokenizer: Tokenizer, model: str
    ) -> None:
        super().__init__(body, lifecycle, model)
        self._has_logprobs = bool(body.logprobs)
        self._tokenizer = tokenizer
        self._has_tools = bool(plan.tools)
        self._readers = [CallReader(plan.names) for _ in lifecycle.requests]

    def whole(self, outputs: list[SequenceOutput]) -> ChatCompletion:
        """The answer that is not streamed."""
        return {
            **self._frame,
            "object": "chat.completion",
            "choices": [self._choice(number, output) for number, output in enumerate(outputs)],
            "usage": self._usage(sum(output.end.generated_tokens for output in outputs)),
        }

    def event(self, number: int, event: TokenEvent) -> ChatChunk | None:
        """The chunk of a token of sequence `number`; None while it is undecided whether the text is a tool call."""
        reader, finished = self._readers[number], event.finished
        delta = self._delta(reader, event)
        if event.index == 1:
            delta = {"role": "assistant", **delta}
        if finished is not None:
            self._num_completion_tokens += finished.generated_tokens
        elif not delta and not self._has_logprobs:
            return None
        choice: ChunkChoice = {
            "index": number,
            "delta": delta,
            "logprobs": self._logprobs([event.token], [event.top_tokens]),
            "finish_reason": self._reason(reader, finished) if finished else None,
        }
        return {**self._frame, "object": "chat.completion.chunk", "choices": [choice]}

    def _delta(self, reader: CallReader, event: TokenEvent) -> AssistantMessage:
        was_named = reader.name is not None
        text, arguments = reader.push(event.text_delta)
        if event.finished is not None:
            text += reader.end()
        if reader.name is not None and not was_named:
            return {"tool_calls": [{"index": 0, **_call(reader.name, arguments)}]}
        if arguments:
            return {"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}
        return {} if self._has_tools and not text else {"content": text}

    def _choice(self, number: int, output: SequenceOutput) -> ChatChoice:
        reader = self._readers[number]
        text, arguments = reader.push(output.end.generated_text)
        text += reader.end()
        message: AssistantMessage = {"role": "assistant", "content": text}
        if reader.name is not None:
            message = {"role": "assistant", "content": None, "tool_calls": [_call(reader.name, arguments)]}
        return {
            "index": number,
            "message": message,
            "logprobs": self._logprobs(output.tokens, output.top_tokens),
            "finish_reason": self._reason(reader, output.end),
        }

    def _reason(self, reader: CallReader, finished: Finished) -> FinishReason:
        return "tool_calls" if reader.is_complete else finish_reason(finished)

    def _logprobs(self, tokens: Sequence[Token], tops: Sequence[tuple[Token, ...]]) -> ChatLogprobs | None:
        if not self._has_logprobs:
            return None
        return {"content": [self._logprob(token, top) for token, top in zip(tokens, tops, strict=True)]}

    def _logprob(self, token: Token, top: tuple[Token, ...]) -> ChatLogprob:
        return {**self._top(token), "top_logprobs": [self._top(each) for each in top]}

    def _top(self, token: Token) -> TopLogprob:
        text = self._tokenizer.describe(token.id).text
        return {"token": text, "logprob": finite(token.logprob), "bytes": list(self._tokenizer.token_bytes(token.id))}


def _call(name: str, arguments: str) -> ToolCallAnswer:
    return {
        "id": f"call_{uuid.uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
