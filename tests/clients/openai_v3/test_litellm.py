"""litellm's OpenAI, vLLM and Hugging Face providers."""

from typing import Any

import litellm
import pytest

from clients.server import KEY, MODEL, Server
from clients.shapes import CHAT, PROMPT, Weather

CLIENT = "litellm"
MESSAGES = [{"role": "user", "content": CHAT}]
TOO_LONG = [{"role": "user", "content": "x y " * 5000}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": Weather.model_json_schema()}}


@pytest.fixture(params=["openai", "hosted_vllm", "huggingface"])
def given(request: pytest.FixtureRequest, server: Server) -> dict[str, Any]:
    """The arguments by which a provider finds the server."""
    api_base = server.url if request.param == "huggingface" else server.v1
    return {"model": f"{request.param}/{MODEL}", "api_base": api_base, "api_key": KEY, "max_tokens": 100, "seed": 7}


def test_chat(given: dict[str, Any]) -> None:
    """A chat's answer, with its usage."""
    answer = litellm.completion(**given, messages=MESSAGES)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0


def test_streamed_chat(given: dict[str, Any]) -> None:
    """Streamed, it is the same."""
    whole = litellm.completion(**given, messages=MESSAGES).choices[0].message.content
    chunks = list(litellm.completion(**given, messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole


async def test_async_chat(given: dict[str, Any]) -> None:
    """The asynchronous call."""
    answer = await litellm.acompletion(**given, messages=MESSAGES)
    assert answer.choices[0].message.content


def test_response_format(given: dict[str, Any]) -> None:
    """A pydantic class as response format."""
    answer = litellm.completion(**given, messages=MESSAGES, response_format=Weather)
    Weather.model_validate_json(answer.choices[0].message.content)


def test_tools(given: dict[str, Any]) -> None:
    """A required call has arguments that fit."""
    answer = litellm.completion(**given, messages=MESSAGES, tools=[TOOL], tool_choice="required")
    (call,) = answer.choices[0].message.tool_calls
    Weather.model_validate_json(call.function.arguments)


def test_text_completion(server: Server) -> None:
    """The text completions of OpenAI's provider."""
    answer = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}", api_base=server.v1, api_key=KEY, prompt=PROMPT, max_tokens=12
    )
    assert answer.choices[0].text


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_context_window_error(server: Server, provider: str) -> None:
    """A prompt too long is the error by which its routers choose a larger model."""
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(f"{provider}/{MODEL}", TOO_LONG, api_base=server.v1, api_key=KEY)


@pytest.mark.xfail(raises=litellm.BadRequestError, reason='it looks for TGI\'s older words, "length limit exceeded"')
def test_context_window_error_of_huggingface(server: Server) -> None:
    """The Hugging Face provider raises BadRequestError instead."""
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(f"huggingface/{MODEL}", TOO_LONG, api_base=server.url, api_key=KEY)


def test_authentication_error(given: dict[str, Any]) -> None:
    """A wrong key is the client's own error for it."""
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**{**given, "api_key": "wrong"}, messages=MESSAGES)


def test_responses(server: Server) -> None:
    """A response through OpenAI's provider."""
    answer = litellm.responses(
        model=f"openai/{MODEL}", api_base=server.v1, api_key=KEY, input=CHAT, max_output_tokens=16
    )
    assert answer.output[0].content[0].text
