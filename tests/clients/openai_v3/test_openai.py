"""openai's helpers above its plain calls, which tests/test_clients.py holds."""

import json
from typing import Any

import pytest
from openai import AsyncOpenAI, LengthFinishReasonError, NotFoundError, OpenAI, pydantic_function_tool

from clients.server import KEY, MODEL, Server
from clients.shapes import CHAT, ENDS, Forecast, Weather

CLIENT = "openai"
GIVEN: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": CHAT}], "seed": 7}


@pytest.fixture
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=server.v1, api_key=KEY, max_retries=0)


@pytest.mark.parametrize("shape", [Weather, Forecast])
def test_parsed_response_format(client: OpenAI, shape: type) -> None:
    """A pydantic class as response format comes back as one of its objects."""
    answer = client.chat.completions.parse(**GIVEN, response_format=shape)
    assert isinstance(answer.choices[0].message.parsed, shape)


def test_json_mode(client: OpenAI) -> None:
    """A JSON object that is cut off is said to be."""
    answer = client.chat.completions.create(**GIVEN, response_format={"type": "json_object"}, max_tokens=200)
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)
    else:
        assert answer.choices[0].finish_reason == "length"


def test_parsed_tool_calls(client: OpenAI) -> None:
    """A pydantic class as a strict tool comes back as its arguments."""
    tools = [pydantic_function_tool(Weather)]
    answer = client.chat.completions.parse(**GIVEN, tools=tools, tool_choice="required")
    (call,) = answer.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Weather)


def test_streamed_chat_events(client: OpenAI) -> None:
    """The stream helper's events add up to its final answer, which is parsed."""
    with client.chat.completions.stream(**GIVEN, response_format=Weather) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        message = stream.get_final_completion().choices[0].message
    assert "".join(deltas) == message.content
    assert isinstance(message.parsed, Weather)


def test_streamed_tool_call_events(client: OpenAI) -> None:
    """So with a tool's arguments."""
    tools = [pydantic_function_tool(Weather)]
    with client.chat.completions.stream(**GIVEN, tools=tools, tool_choice="required") as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    assert [type(event.parsed_arguments) for event in done] == [Weather]


def test_length_limit_is_told(client: OpenAI) -> None:
    """A parsed answer that does not fit raises the client's own error."""
    with pytest.raises(LengthFinishReasonError):
        client.chat.completions.parse(**GIVEN, response_format=Weather, max_tokens=2)


async def test_async_client(server: Server) -> None:
    """The asynchronous client streams the same answer as it gets whole."""
    async with AsyncOpenAI(base_url=server.v1, api_key=KEY) as client:
        whole = await client.chat.completions.create(**GIVEN, max_tokens=16)
        stream = await client.chat.completions.create(**GIVEN, max_tokens=16, stream=True)
        parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(parts) == whole.choices[0].message.content


def test_models(client: OpenAI) -> None:
    """The list and one model, whose id has a slash."""
    (model,) = client.models.list()
    assert client.models.retrieve(model.id).id == model.id == MODEL


def test_raw_response_headers(client: OpenAI) -> None:
    """The request's id is where the client looks for it."""
    answer = client.chat.completions.with_raw_response.create(**GIVEN, max_tokens=1)
    assert answer.request_id


def test_responses(client: OpenAI) -> None:
    """A response, and one that goes on from it."""
    first = client.responses.create(model=MODEL, input=CHAT, max_output_tokens=16)
    assert first.output_text
    second = client.responses.create(
        model=MODEL, input="Go on.", max_output_tokens=16, previous_response_id=first.id, instructions="Be brief."
    )
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.total_tokens


def test_parsed_response(client: OpenAI) -> None:
    """A pydantic class as text format."""
    assert isinstance(client.responses.parse(model=MODEL, input=CHAT, text_format=Weather).output_parsed, Weather)


def test_streamed_response_events(client: OpenAI) -> None:
    """The typed events add up to the final response."""
    with client.responses.stream(model=MODEL, input=CHAT, extra_body=ENDS) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text


@pytest.mark.xfail(raises=NotFoundError, reason="a text-generation server has no embeddings")
def test_embeddings(client: OpenAI) -> None:
    """There is no such route."""
    client.embeddings.create(model=MODEL, input=CHAT)
