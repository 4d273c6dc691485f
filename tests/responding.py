"""Requests of /v1/responses to a served engine without a model."""

import json
from typing import Any

from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from fakes import Server

PATH = "/v1/responses"
DIVE = {"type": "function", "name": "dive", "parameters": {"type": "object", "properties": {"to": {"type": "string"}}}}
LOGPROBS = "message.output_text.logprobs"
_EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


def respond(server: Server, input: Any = "the fox", **given: Any) -> Response:
    """The response, which must be what OpenAI's client expects."""
    answer = server.client.post(PATH, json={"input": input, **given})
    assert answer.status_code == 200, answer.text
    return Response.model_validate_json(answer.text)


def stream(server: Server, input: Any = "the fox", **given: Any) -> list[Any]:
    """The events of a stream: named by their type, numbered, each as OpenAI's client expects it."""
    body = {"input": input, "stream": True, **given}
    with server.client.stream("POST", PATH, json=body) as answer:
        assert answer.status_code == 200, answer.read()
        blocks = answer.read().decode().strip().split("\n\n")
    named = [block.split("\n") for block in blocks]
    events = [json.loads(data.removeprefix("data: ")) for _, data in named]
    assert [name for name, _ in named] == [f"event: {event['type']}" for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return [_EVENT.validate_python(event) for event in events]


def deltas(events: list[Any], type: str = "response.output_text.delta") -> str:
    """The text that the deltas of a stream join to."""
    return "".join(event.delta for event in events if event.type == type)


def refusal(server: Server, input: Any = "the fox", status: int = 400, **given: Any) -> dict[str, Any]:
    """The error of a request that is refused."""
    answer = server.client.post(PATH, json={"input": input, **given})
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    return error
