"""Parts that completions and chat completions have in common: the frame of an answer, its usage, a stream's end."""

import time
from functools import cache
from importlib.metadata import version
from typing import ClassVar, NotRequired, TypedDict

from peregrine_router.api.openai.answer_schemas import FinishReason, Usage
from peregrine_router.api.openai.schemas import OpenAiParameters
from peregrine_router.http.errors import ErrorSpec, openai_error
from peregrine_router.http.request_lifecycle import RequestLifecycle
from peregrine_router.http.sse import DONE, encode_events
from peregrine_router.request import Finished
from peregrine_router.request import FinishReason as Reason

SMALLEST_LOGPROB = -9999.0
"""OpenAI's log-probability of a token that is all but impossible; JSON has no infinity."""


class Frame(TypedDict):
    """Fields that an answer and every chunk of a stream have in common."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    usage: NotRequired[Usage | None]


class OpenAiAnswer:
    """The answer to one request, whole or as a stream. The routes' formatters derive from it."""

    id_prefix: ClassVar[str]
    stream_object: ClassVar[str]
    """`object` of the chunks of a stream."""

    def __init__(self, body: OpenAiParameters, lifecycle: RequestLifecycle, model: str) -> None:
        """`model` is the name to answer with if the client gave none."""
        self._lifecycle = lifecycle
        self._frame: Frame = {
            "id": f"{self.id_prefix}-{lifecycle.requests[0].id}",
            "object": self.stream_object,
            "created": int(time.time()),
            "model": body.model or model,
            "system_fingerprint": fingerprint(),
        }
        self._streams_usage = bool(body.stream_options and body.stream_options.include_usage)
        if self._streams_usage:
            # As OpenAI's: null in every chunk but the last.
            self._frame["usage"] = None
        self._num_completion_tokens = 0
        """Tokens of the sequences of a stream that have ended."""

    def start(self) -> bytes:
        """Nothing: the first chunk comes with the first token."""
        return b""

    def end(self) -> bytes:
        """The last events of a stream: usage if asked for, and `[DONE]`."""
        if not self._streams_usage:
            return DONE
        usage = self._usage(self._num_completion_tokens)
        return encode_events({**self._frame, "choices": [], "usage": usage}) + DONE

    def error(self, spec: ErrorSpec, message: str) -> object:
        """The same JSON as in the body of an answer that is not streamed."""
        return openai_error(spec, message)

    def _usage(self, num_completion_tokens: int) -> Usage:
        num_prompt_tokens = self._lifecycle.num_prompt_tokens
        return {
            "prompt_tokens": num_prompt_tokens,
            "completion_tokens": num_completion_tokens,
            "total_tokens": num_prompt_tokens + num_completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self._lifecycle.num_cached_tokens},
        }


@cache
def fingerprint() -> str:
    """The version, and how it was installed, in TGI's form."""
    return f"{version('peregrine')}-native"


def finish_reason(finished: Finished) -> FinishReason:
    """OpenAI's reason: an end-of-text token and a stop sequence are the same to it."""
    return "length" if finished.reason is Reason.LENGTH else "stop"


def finite(logprob: float | None) -> float:
    """A log-probability that JSON can hold; NaN compares false with everything."""
    return logprob if logprob is not None and logprob >= SMALLEST_LOGPROB else SMALLEST_LOGPROB
