"""Answers of POST /v1/responses, whole and streamed, over real sockets, on an engine without a model."""

import pytest
from openai.types.responses import Response, ResponseOutputText

from fakes import EOS, Server
from peregrine_router.request import GenerationFailed
from responding import DIVE, LOGPROBS, deltas, respond, stream

REPEATED = {
    "instructions": "be",
    "max_output_tokens": 9,
    "metadata": {"a": "b"},
    "model": "any",
    "parallel_tool_calls": False,
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "temperature": 0.5,
    "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}},
    "tool_choice": "none",
    "top_p": 0.9,
    "truncation": "auto",
    "user": "alice",
}


def test_answer(chatting: Server) -> None:
    """A response has OpenAI's fields, the text in one part of one message, and its usage."""
    response = respond(chatting)
    assert (response.status, response.object, response.output_text) == ("completed", "response", " falcons dive")
    assert response.id.startswith("resp_")
    (message,) = response.output
    assert message.type == "message"
    assert (message.role, message.status, message.id.startswith("msg_")) == ("assistant", "completed", True)
    usage = response.usage
    assert usage is not None
    assert usage.input_tokens == len(chatting.engine.requests[-1].prompt_ids)
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def test_what_is_asked_for_is_repeated(chatting: Server) -> None:
    """The answer says with which parameters it was made."""
    response = respond(chatting, **REPEATED).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert {name: response[name] for name in REPEATED} == REPEATED


def test_defaults_are_told(chatting: Server) -> None:
    """A parameter that is not given is OpenAI's default; greedy decoding is a temperature of 0."""
    response = respond(chatting)
    assert (response.temperature, response.top_p, response.tool_choice, response.tools) == (1.0, 1.0, "auto", [])
    assert (response.truncation, response.parallel_tool_calls, response.background) == ("disabled", True, False)
    assert respond(chatting, temperature=0).temperature == 0.0


def test_cut_off(chatting: Server) -> None:
    """A response that ends at `max_output_tokens` is incomplete, and so is its message."""
    response = respond(chatting, max_output_tokens=1)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[-1].status == "incomplete"  # type: ignore[union-attr]
    assert stream(chatting, max_output_tokens=1)[-1].type == "response.incomplete"


def part(response: Response) -> ResponseOutputText:
    """The only part of the only message."""
    (message,) = response.output
    assert message.type == "message"
    (part,) = message.content
    assert part.type == "output_text"
    return part


def test_logprobs(chatting: Server) -> None:
    """If `include` asks for them, every token is described with its bytes and the most probable tokens."""
    logprobs = part(respond(chatting, include=[LOGPROBS], top_logprobs=2)).logprobs
    assert logprobs is not None
    assert all(len(token.top_logprobs) == 2 for token in logprobs)
    assert b"".join(bytes(token.bytes) for token in logprobs).decode() == f" falcons dive{EOS}"
    assert part(respond(chatting, top_logprobs=2)).logprobs == []


def test_streamed_logprobs(chatting: Server) -> None:
    """Each delta has those of its tokens, the end all."""
    events = stream(chatting, include=[LOGPROBS])
    told = [token.token for event in events if event.type == "response.output_text.delta" for token in event.logprobs]
    assert "".join(told) == " falcons dive"
    (done,) = (event for event in events if event.type == "response.output_text.done")
    assert [token.token for token in done.logprobs] == [*told, EOS]


def test_stream(chatting: Server) -> None:
    """A stream begins and ends as OpenAI's, its deltas join to the text, and its last event has the whole response."""
    events = stream(chatting)
    types = [event.type for event in events]
    assert types[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert types[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert deltas(events) == events[-1].response.output_text == " falcons dive"
    assert events[0].response.status == "in_progress"
    assert events[0].response.id == events[-1].response.id


def test_a_stream_ends_without_a_mark(chatting: Server) -> None:
    """[DONE] is of the older APIs: the last event is response.completed."""
    text = chatting.client.post("/v1/responses", json={"input": "a", "stream": True}).text
    assert "[DONE]" not in text


@pytest.mark.parametrize("says", ["", " ", "\u2028"])
def test_any_text_is_one_message(chatting: Server, says: str) -> None:
    """Even of no text there is a message, whole and streamed."""
    chatting.engine.says = says
    assert respond(chatting).output_text == says
    events = stream(chatting)
    assert deltas(events) == says
    assert len(events[-1].response.output) == 1


def test_a_call(caller: Server) -> None:
    """A tool call is an item with the ids of item and call, complete arguments, and no message beside it."""
    (call,) = respond(caller, tools=[DIVE]).output
    assert call.type == "function_call"
    assert (call.name, call.arguments, call.status) == ("dive", '{"to": "{\\"}"}', "completed")
    assert call.call_id.startswith("call_")
    assert (call.id or "").startswith("fc_")


def test_a_streamed_call(caller: Server) -> None:
    """Its pieces join to the arguments, and its end has them whole."""
    events = stream(caller, tools=[DIVE])
    (done,) = (event for event in events if event.type == "response.function_call_arguments.done")
    assert deltas(events, "response.function_call_arguments.delta") == done.arguments == '{"to": "{\\"}"}'
    assert not deltas(events)


def test_a_failure_is_told(chatting: Server) -> None:
    """A stream whose generation fails ends with the error, and with the response that failed and what it has."""
    chatting.engine.error_at, chatting.engine.error = 3, GenerationFailed("shard 0 exited")
    try:
        events = stream(chatting)
    finally:
        chatting.engine.error_at = None
    error, failed = events[-2:]
    assert (error.type, failed.type, failed.response.status) == ("error", "response.failed", "failed")
    assert "shard 0 exited" in error.message
    assert failed.response.error.code == "server_error"
    assert failed.response.output_text == deltas(events) == " falcons"


def test_a_failure_is_raised_by_the_client(chatting: Server) -> None:
    """The event has the field by which OpenAI's client raises it."""
    chatting.engine.error_at = 3
    try:
        text = chatting.client.post("/v1/responses", json={"input": "a", "stream": True}).text
    finally:
        chatting.engine.error_at = None
    assert '"error":{"message":' in text.partition("event: error")[2]
