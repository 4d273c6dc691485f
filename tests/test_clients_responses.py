"""OpenAI's published client, unchanged, on /v1/responses of the real server with the demo model."""

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from openai.lib.streaming.responses import ResponseTextDeltaEvent
from openai.types.responses import FunctionToolParam, Response, ResponseFunctionToolCall
from pydantic import BaseModel

from serving import ServerProcess

pytestmark = pytest.mark.slow

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}


class Bird(BaseModel):
    """A form for the model's answer."""

    kind: Literal["falcon", "owl"]
    is_fast: bool


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with ServerProcess("--dtype", "float32", "--api-key", "secret,other") as server:
        url = f"{server.client.base_url}/v1"
        with openai.OpenAI(base_url=url, api_key="secret", max_retries=0) as client:
            yield client


def ask(client: openai.OpenAI, input: Any = "Who are you?", **given: Any) -> Response:
    """A short response with a fixed seed."""
    parameters: dict[str, Any] = {"model": "tgi", "max_output_tokens": 40, "extra_body": {"seed": 7}, **given}
    response = client.responses.create(input=input, **parameters)
    assert isinstance(response, Response)
    return response


def test_create(client: openai.OpenAI) -> None:
    """It says what a chat with the same seed says."""
    response = ask(client)
    chat = client.chat.completions.create(
        model="tgi", messages=[{"role": "user", "content": "Who are you?"}], max_completion_tokens=40, seed=7
    )
    assert response.output_text == chat.choices[0].message.content
    assert response.usage is not None
    assert chat.usage is not None
    assert response.usage.total_tokens == chat.usage.total_tokens


def test_stream(client: openai.OpenAI) -> None:
    """The deltas are the text of the final response, which is the one that is not streamed."""
    given: dict[str, Any] = {"model": "tgi", "input": "Who are you?", "extra_body": {"seed": 7}}
    with client.responses.stream(**given) as stream:
        text = "".join(event.delta for event in stream if isinstance(event, ResponseTextDeltaEvent))
        final = stream.get_final_response()
    assert text == final.output_text == client.responses.create(**given).output_text
    assert final.status == "completed"


def test_parse(client: openai.OpenAI) -> None:
    """A pydantic model is the form of the text, whole and streamed."""
    parsed = client.responses.parse(model="tgi", input="Describe a bird.", text_format=Bird)
    assert parsed.output_parsed is not None
    assert parsed.output_parsed.kind in ("falcon", "owl")
    with client.responses.stream(model="tgi", input="Describe a bird.", text_format=Bird) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Bird)


def test_a_call_or_a_parsed_answer(client: openai.OpenAI) -> None:
    """With functions that may be called and a form of the text, the output is a whole call or of that form."""
    response = client.responses.parse(
        model="tgi", input="How is the weather in Paris?", tools=[WEATHER], text_format=Bird, extra_body={"seed": 3}
    )
    calls = [item for item in response.output if item.type == "function_call"]
    assert [set(json.loads(call.arguments)) for call in calls] == [{"city", "unit"}] or response.output_parsed


def test_a_tool_round_trip(client: openai.OpenAI) -> None:
    """A required call, streamed as it is whole, is answered with its output in a second request."""
    given: dict[str, Any] = {
        "tools": [WEATHER],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_output_tokens": 80,
    }
    first = ask(client, "How is the weather in Paris?", **given)
    (call,) = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert set(json.loads(call.arguments)) == {"city", "unit"}
    with client.responses.stream(
        model="tgi", input="How is the weather in Paris?", extra_body={"seed": 7}, **given
    ) as stream:
        events = [event for event in stream if event.type == "response.function_call_arguments.delta"]
    assert "".join(event.delta for event in events) == events[-1].snapshot == call.arguments
    output = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    second = ask(client, output, previous_response_id=first.id)
    assert second.output_text
    by_hand = ask(client, [{"role": "user", "content": "How is the weather in Paris?"}, call.model_dump(), *output])
    assert by_hand.output_text == second.output_text


def test_a_conversation(client: openai.OpenAI) -> None:
    """It goes on by `previous_response_id` as it does by hand, from the client's own objects too."""
    first = ask(client, instructions="Answer in one sentence.")
    second = ask(client, "Why?", previous_response_id=first.id)
    items = [{"role": "user", "content": "Who are you?"}, *first.output, {"role": "user", "content": "Why?"}]
    assert ask(client, items).output_text == second.output_text
    reference = {"type": "item_reference", "id": first.output[0].id}
    assert ask(client, [items[0], reference, items[2]]).output_text == second.output_text


def test_stored_responses(client: openai.OpenAI) -> None:
    """A response is retrieved as it was answered, its input is listed page by page, and once deleted it is gone."""
    response = ask(client, [{"role": "user", "content": str(number)} for number in range(3)])
    assert client.responses.retrieve(response.id) == response
    listed: list[Any] = list(client.responses.input_items.list(response.id, limit=2, order="asc"))
    assert [item.content[0].text for item in listed] == list("012")
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError, match=f"Response with id '{response.id}' not found"):
        client.responses.retrieve(response.id)


def test_incomplete(client: openai.OpenAI) -> None:
    """A response that is cut off says so."""
    response = ask(client, max_output_tokens=3)
    assert (response.status, response.usage and response.usage.output_tokens) == ("incomplete", 3)
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


def test_refusals(client: openai.OpenAI) -> None:
    """A request for what this server lacks is the client's BadRequestError, with the parameter."""
    refused: dict[str, Any] = {"tools": [{"type": "web_search"}], "background": True, "conversation": "conv_1"}
    for param, value in refused.items():
        with pytest.raises(openai.BadRequestError, match="not supported") as error:
            ask(client, **{param: value})
        assert error.value.param == param
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(ask(client).id)


def test_another_key(client: openai.OpenAI) -> None:
    """A response is found by the key that made it alone."""
    id, other = ask(client).id, client.with_options(api_key="other")
    with pytest.raises(openai.NotFoundError):
        other.responses.retrieve(id)
    with pytest.raises(openai.BadRequestError) as error:
        ask(other, previous_response_id=id)
    assert error.value.code == "previous_response_not_found"
