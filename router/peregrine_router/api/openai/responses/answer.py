"""The answer to a request for a response: whole, or as the events of a stream."""

import itertools
import time
from collections.abc import Callable
from typing import Any

from peregrine_router.api.openai.answer_schemas import ChatLogprob
from peregrine_router.api.openai.call_reader import Piece
from peregrine_router.api.openai.chat_completions import chat_finish_reason
from peregrine_router.api.openai.chat_logprobs import chat_logprob
from peregrine_router.api.openai.responses.answer_schemas import (
    IncompleteDetails,
    ResponseError,
    ResponseObject,
    ResponseStatus,
    ResponseUsage,
)
from peregrine_router.api.openai.responses.event_schemas import LifecycleEvent, ResponseErrorEvent, ResponseEvent
from peregrine_router.api.openai.responses.output import Output
from peregrine_router.api.openai.responses.schemas import FunctionTool, ResponseRequest, ResponseToolChoice
from peregrine_router.api.openai.tools import ToolPlan
from peregrine_router.http.errors import ErrorSpec, openai_error
from peregrine_router.http.parameter_names import RESPONSES_NAMES
from peregrine_router.http.request_lifecycle import RequestLifecycle
from peregrine_router.http.sse import encode_named_events
from peregrine_router.request import Finished, TokenEvent
from peregrine_router.text.tokenizer import Tokenizer

CUT_OFF: IncompleteDetails = {"reason": "max_output_tokens"}


class ResponseAnswer:
    """A formatter of the events of one response. Read to its end, it has the whole response too."""

    def __init__(
        self,
        body: ResponseRequest,
        plan: ToolPlan,
        lifecycle: RequestLifecycle,
        tokenizer: Tokenizer,
        model: str,
        keep: Callable[[ResponseObject], None] | None,
    ) -> None:
        """`model`: the name to answer with if the client gave none. `keep` stores the complete response; None if it is
        not to be stored."""
        self._body = body
        self._lifecycle = lifecycle
        self._tokenizer = tokenizer
        self._reader = plan.reader()
        self._keep = keep
        self._numbers = itertools.count()
        self._output = Output(self._numbers)
        self._finished: Finished | None = None
        self._response = _started(body, lifecycle, model, is_stored=keep is not None)

    def start(self) -> bytes:
        """The events before the first token."""
        created = self._lifecycle_event("response.created", self._response)
        return encode_named_events(created, self._lifecycle_event("response.in_progress", self._response))

    def event(self, number: int, event: TokenEvent) -> list[ResponseEvent]:
        """The events of a token; none while it is undecided whether the text is a tool call."""
        reader = self._reader
        pieces: list[Piece] = [event.text_delta] if reader is None else reader.push(event.text_delta)
        if event.finished is not None:
            self._finished = event.finished
            pieces += reader.end() if reader else []
        return self._output.add(pieces, self._logprobs(event))

    def end(self) -> bytes:
        """The last events."""
        is_cut_off = self._is_cut_off
        events = self._output.end("incomplete" if is_cut_off else "completed")
        response = self._complete(is_cut_off=is_cut_off)
        type = "response.incomplete" if is_cut_off else "response.completed"
        return encode_named_events(*events, self._lifecycle_event(type, response))

    def error(self, spec: ErrorSpec, message: str) -> list[ResponseEvent]:
        """The events that end a stream that fails."""
        error = openai_error(spec, message, RESPONSES_NAMES)["error"]
        code = "server_error" if spec.openai_status >= 500 else error["code"] or spec.error_type
        text = error["message"]
        event: ResponseErrorEvent = {
            "type": "error",
            "sequence_number": next(self._numbers),
            "code": code,
            "message": text,
            "param": error["param"],
            "error": error,
        }
        failed = self._ended("failed", error={"code": code, "message": text})
        return [event, self._lifecycle_event("response.failed", failed)]

    def whole(self) -> ResponseObject:
        """The response, once every token has been an `event`."""
        is_cut_off = self._is_cut_off
        self._output.end("incomplete" if is_cut_off else "completed")
        return self._complete(is_cut_off=is_cut_off)

    @property
    def num_output_tokens(self) -> int:
        """Number of generated tokens, once all have come."""
        return self._finished.generated_tokens if self._finished else 0

    @property
    def _is_cut_off(self) -> bool:
        assert self._finished is not None
        return chat_finish_reason(self._reader, self._finished) == "length"

    def _complete(self, *, is_cut_off: bool) -> ResponseObject:
        """The response at its end, kept."""
        response = self._ended("incomplete" if is_cut_off else "completed")
        if self._keep is not None:
            self._keep(response)
        return response

    def _ended(self, status: ResponseStatus, error: ResponseError | None = None) -> ResponseObject:
        return {
            **self._response,
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "error": error,
            "incomplete_details": CUT_OFF if status == "incomplete" else None,
            "output": self._output.items(),
            "usage": self._usage() if self._finished else None,
        }

    def _usage(self) -> ResponseUsage:
        num_input, num_output = self._lifecycle.num_prompt_tokens, self.num_output_tokens
        return {
            "input_tokens": num_input,
            "input_tokens_details": {"cached_tokens": self._lifecycle.num_cached_tokens, "cache_write_tokens": 0},
            "output_tokens": num_output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": num_input + num_output,
        }

    def _logprobs(self, event: TokenEvent) -> list[ChatLogprob]:
        if not self._body.has_logprobs:
            return []
        return [chat_logprob(self._tokenizer, event.token, event.top_tokens)]

    def _lifecycle_event(self, type: Any, response: ResponseObject) -> LifecycleEvent:
        return {"type": type, "sequence_number": next(self._numbers), "response": response}


def _started(body: ResponseRequest, lifecycle: RequestLifecycle, model: str, *, is_stored: bool) -> ResponseObject:
    """The response before its first token."""
    request = lifecycle.requests[0]
    sampling = request.sampling
    return {
        "id": f"resp_{request.id}",
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "model": body.model or model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": is_stored,
        "temperature": sampling.temperature if sampling.do_sample else 0.0,
        "text": {"format": _text_format(body)},
        "tool_choice": _tool_choice(body),
        "tools": [_tool(tool) for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": sampling.top_p,
        "truncation": body.truncation or "disabled",
        "usage": None,
        "user": body.user,
    }


def _text_format(body: ResponseRequest) -> dict[str, Any]:
    given = body.text.format if body.text else None
    return given.model_dump(by_alias=True, exclude_none=True) if given else {"type": "text"}


def _tool_choice(body: ResponseRequest) -> Any:
    given = body.tool_choice
    return given.model_dump(exclude_unset=True) if isinstance(given, ResponseToolChoice) else given or "auto"


def _tool(tool: FunctionTool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": bool(tool.strict),
    }
