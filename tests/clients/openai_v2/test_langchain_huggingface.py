"""LangChain's Hugging Face integration, on TGI's routes."""

import pytest
from langchain_core.tools import tool
from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint

from clients.server import KEY, Server
from clients.shapes import CHAT, PROMPT, Weather

CLIENT = "langchain-huggingface"


@tool
def get_weather(unit: bool) -> str:
    """Look up the weather."""
    return "It is fine."


@pytest.fixture
def endpoint(server: Server) -> HuggingFaceEndpoint:
    """An endpoint: it sends its token to Hugging Face alone, so the key is given as a header."""
    headers = {"headers": {"Authorization": f"Bearer {KEY}"}}
    return HuggingFaceEndpoint(endpoint_url=server.url, server_kwargs=headers, max_new_tokens=100, seed=7)


def test_text_generation(endpoint: HuggingFaceEndpoint) -> None:
    """Text, whole and streamed."""
    whole = endpoint.invoke(PROMPT)
    assert whole
    assert "".join(endpoint.stream(PROMPT)).removesuffix("<|endoftext|>") == whole


async def test_async_text_generation(endpoint: HuggingFaceEndpoint) -> None:
    """The asynchronous call."""
    assert await endpoint.ainvoke(PROMPT)


def test_stop_sequences(endpoint: HuggingFaceEndpoint) -> None:
    """A stop sequence ends the text and is cut off by the client."""
    assert "e" not in endpoint.invoke(PROMPT, stop=["e"])


def test_chat(endpoint: HuggingFaceEndpoint) -> None:
    """A chat, whole and streamed."""
    chat = ChatHuggingFace(llm=endpoint)
    assert chat.invoke(CHAT).content
    assert "".join(str(chunk.content) for chunk in chat.stream(CHAT))


def test_tools(endpoint: HuggingFaceEndpoint) -> None:
    """A required call."""
    bound = ChatHuggingFace(llm=endpoint).bind_tools([get_weather], tool_choice="required")
    (call,) = bound.invoke(CHAT).tool_calls
    assert call["name"] == "get_weather"


def test_structured_output(endpoint: HuggingFaceEndpoint) -> None:
    """with_structured_output of a JSON schema."""
    chat = ChatHuggingFace(llm=endpoint).with_structured_output(Weather.model_json_schema(), method="json_schema")
    Weather.model_validate(chat.invoke(CHAT))
