"""huggingface_hub's clients, beyond what tests/test_clients.py holds."""

import json
from typing import Any

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient

from clients.server import KEY, MODEL, Server
from clients.shapes import CHAT, PROMPT, Weather

CLIENT = "huggingface_hub"
GIVEN: dict[str, Any] = {"messages": [{"role": "user", "content": CHAT}], "max_tokens": 100, "seed": 7}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": Weather.model_json_schema()}}


@pytest.fixture
def client(server: Server) -> InferenceClient:
    return InferenceClient(base_url=server.url, token=KEY)


async def test_async_text_generation(server: Server) -> None:
    """The asynchronous client streams the same text as it gets whole."""
    given: dict[str, Any] = {"prompt": PROMPT, "max_new_tokens": 12, "return_full_text": False}
    async with AsyncInferenceClient(base_url=server.url, token=KEY) as client:
        whole = await client.text_generation(**given)
        parts = [part async for part in await client.text_generation(**given, stream=True)]
    assert "".join(parts) == whole


def test_grammar(client: InferenceClient) -> None:
    """A JSON schema and a regular expression as the grammar of text_generation."""
    schema = {"type": "json", "value": Weather.model_json_schema()}
    text = client.text_generation(PROMPT, grammar=schema, max_new_tokens=100, return_full_text=False)
    Weather.model_validate_json(text)
    digits = {"type": "regex", "value": "[0-9]{3}"}
    assert int(client.text_generation(PROMPT, grammar=digits, max_new_tokens=20, return_full_text=False)) < 1000


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json", "value": Weather.model_json_schema()},
        {"type": "json_schema", "json_schema": {"name": "weather", "schema": Weather.model_json_schema()}},
    ],
    ids=["TGI's", "OpenAI's"],
)
def test_response_format(client: InferenceClient, response_format: dict[str, Any]) -> None:
    """TGI's and OpenAI's forms of a chat's response format."""
    answer = client.chat_completion(**GIVEN, response_format=response_format)
    Weather.model_validate_json(answer.choices[0].message.content or "")


def test_tools(client: InferenceClient) -> None:
    """A required call has arguments that fit."""
    answer = client.chat_completion(**GIVEN, tools=[TOOL], tool_choice="required")
    (call,) = answer.choices[0].message.tool_calls or []
    arguments = call.function.arguments
    Weather.model_validate(json.loads(arguments) if isinstance(arguments, str) else arguments)


def test_openai_alias(client: InferenceClient) -> None:
    """client.chat.completions.create, as openai's client has it."""
    answer = client.chat.completions.create(**GIVEN, model=MODEL)
    assert answer.choices[0].message.content
