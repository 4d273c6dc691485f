"""LangChain's OpenAI integration."""

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI

from clients.server import KEY, MODEL, Server
from clients.shapes import CHAT, PROMPT, Weather

CLIENT = "langchain-openai"


@tool
def get_weather(is_metric: bool) -> str:
    """Look up the weather."""
    return "It is fine."


@pytest.fixture
def chat(server: Server) -> ChatOpenAI:
    return ChatOpenAI(base_url=server.v1, api_key=KEY, model=MODEL, max_completion_tokens=120, seed=7, max_retries=0)


def test_completion(server: Server) -> None:
    """The text completions class, whole, streamed and in a batch."""
    model = OpenAI(base_url=server.v1, api_key=KEY, model=MODEL, max_tokens=12, temperature=0)
    whole = model.invoke(PROMPT)
    assert whole
    assert "".join(model.stream(PROMPT)) == whole
    assert model.batch([PROMPT, "She said"])[0] == whole


def test_chat(chat: ChatOpenAI) -> None:
    """A chat's answer, with its usage."""
    answer = chat.invoke(CHAT)
    assert answer.content
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0


def test_streamed_chat(chat: ChatOpenAI) -> None:
    """Streamed, it is the same, and the usage comes too."""
    chunks = list(chat.stream(CHAT, stream_usage=True))
    assert "".join(str(chunk.content) for chunk in chunks) == chat.invoke(CHAT).content
    assert any(chunk.usage_metadata for chunk in chunks)


async def test_async_chats(chat: ChatOpenAI) -> None:
    """Several at once."""
    assert all(answer.content for answer in await chat.abatch([CHAT] * 4))


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(chat: ChatOpenAI, method: str) -> None:
    """with_structured_output of a pydantic class, through a response format and through a tool."""
    assert isinstance(chat.with_structured_output(Weather, method=method).invoke(CHAT), Weather)


def test_logprobs(chat: ChatOpenAI) -> None:
    """Log-probabilities are in the message's metadata."""
    answer = chat.bind(logprobs=True, top_logprobs=2).invoke(CHAT)
    assert len(answer.response_metadata["logprobs"]["content"][0]["top_logprobs"]) == 2


def test_tool_loop(chat: ChatOpenAI) -> None:
    """A required call, and an answer once its result is in the conversation."""
    called = chat.bind_tools([get_weather], tool_choice="any").invoke(CHAT)
    (call,) = called.tool_calls
    assert call["name"] == "get_weather"
    history = [HumanMessage(CHAT), called, ToolMessage("It is fine.", tool_call_id=call["id"])]
    assert chat.bind_tools([get_weather], tool_choice="none").invoke(history).content


def test_responses(chat: ChatOpenAI, server: Server) -> None:
    """A chat through /v1/responses."""
    model = ChatOpenAI(base_url=server.v1, api_key=KEY, model=MODEL, max_completion_tokens=16, use_responses_api=True)
    assert model.invoke(CHAT).text
    assert "".join(chunk.text for chunk in model.stream(CHAT))
