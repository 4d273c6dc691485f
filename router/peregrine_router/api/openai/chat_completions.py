"""Chat completions: tokens as OpenAI's JSON, either text or tool calls."""

import uuid
from collections.abc import Sequence

from peregrine_router.api.openai.answer import OpenAiAnswer, finish_reason
from peregrine_router.api.openai.answer_schemas import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChunkChoice,
    FinishReason,
    ToolCallAnswer,
)
from peregrine_router.api.openai.call_reader import CallDelta, CallReader, Piece
from peregrine_router.api.openai.chat_logprobs import chat_logprob
from peregrine_router.api.openai.constrained_call_reader import ConstrainedCallReader
from peregrine_router.api.openai.schemas import ChatRequest
from peregrine_router.api.openai.tools import ToolPlan
from peregrine_router.http.request_lifecycle import RequestLifecycle
from peregrine_router.http.sequence_output import SequenceOutput
from peregrine_router.request import Finished, Token, TokenEvent
from peregrine_router.text.tokenizer import Tokenizer

Reader = CallReader | ConstrainedCallReader


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
        self._readers = [plan.reader() for _ in lifecycle.requests]

    def whole(self, outputs: list[SequenceOutput]) -> ChatCompletion:
        """The answer that is not streamed."""
        return {
            **self._frame,
            "object": "chat.completion",
            "choices": [self._choice(number, output) for number, output in enumerate(outputs)],
            "usage": self._usage(sum(output.end.generated_tokens for output in outputs)),
        }

    def event(self, number: int, event: TokenEvent) -> list[ChatChunk]:
        """The chunks of a token of sequence `number`; none while it is undecided whether the text is a tool call."""
        reader, finished = self._readers[number], event.finished
        deltas = _deltas(reader, event.text_delta, is_last=finished is not None)
        if event.index == 1:
            deltas = [{"role": "assistant", **(deltas[0] if deltas else {})}, *deltas[1:]]
        if finished is not None:
            self._num_completion_tokens += finished.generated_tokens
        if not deltas and (finished is not None or self._has_logprobs):
            deltas = [{}]
        choices: list[ChunkChoice] = [
            {"index": number, "delta": delta, "logprobs": None, "finish_reason": None} for delta in deltas
        ]
        if choices:
            choices[0]["logprobs"] = self._logprobs([event.token], [event.top_tokens])
            choices[-1]["finish_reason"] = chat_finish_reason(reader, finished) if finished else None
        return [{**self._frame, "object": "chat.completion.chunk", "choices": [choice]} for choice in choices]

    def _choice(self, number: int, output: SequenceOutput) -> ChatChoice:
        reader = self._readers[number]
        text = output.end.generated_text
        return {
            "index": number,
            "message": _message([*reader.push(text), *reader.end()] if reader else [text]),
            "logprobs": self._logprobs(output.tokens, output.top_tokens),
            "finish_reason": chat_finish_reason(reader, output.end),
        }

    def _logprobs(self, tokens: Sequence[Token], tops: Sequence[tuple[Token, ...]]) -> ChatLogprobs | None:
        if not self._has_logprobs:
            return None
        logprobs = [chat_logprob(self._tokenizer, token, top) for token, top in zip(tokens, tops, strict=True)]
        return {"content": logprobs, "refusal": None}


def _deltas(reader: Reader | None, text: str, is_last: bool) -> list[AssistantMessage]:
    if reader is None:
        return [{"content": text}]
    pieces = reader.push(text)
    if is_last:
        pieces += reader.end()
    return [_delta(piece) for piece in pieces]


def _delta(piece: Piece) -> AssistantMessage:
    if isinstance(piece, str):
        return {"content": piece}
    if piece.name is None:
        return {"tool_calls": [{"index": piece.index, "function": {"arguments": piece.arguments}}]}
    return {"tool_calls": [{"index": piece.index, **_call(piece.name, piece.arguments)}]}


def _message(pieces: list[Piece]) -> AssistantMessage:
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    calls: list[ToolCallAnswer] = []
    for piece in pieces:
        if isinstance(piece, CallDelta) and piece.name is not None:
            calls.append(_call(piece.name, piece.arguments))
        elif isinstance(piece, CallDelta):
            calls[-1]["function"]["arguments"] += piece.arguments
    if not calls:
        return {"role": "assistant", "content": text, "refusal": None}
    return {"role": "assistant", "content": text or None, "refusal": None, "tool_calls": calls}


def chat_finish_reason(reader: Reader | None, finished: Finished) -> FinishReason:
    """OpenAI's reason: `tool_calls` if there are any, unless the limit of tokens cut off something behind them."""
    reason = finish_reason(finished)
    has_calls = reader is not None and reader.num_calls > 0 and (reason == "stop" or reader.is_after_call)
    return "tool_calls" if has_calls else reason


def new_call_id() -> str:
    """An id by which a tool's result names its call."""
    return f"call_{uuid.uuid4().hex[:24]}"


def _call(name: str, arguments: str) -> ToolCallAnswer:
    return {
        "id": new_call_id(),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
