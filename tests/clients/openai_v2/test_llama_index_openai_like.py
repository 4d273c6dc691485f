"""LlamaIndex's OpenAI-like models."""

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike, OpenAILikeResponses

from clients.server import KEY, MODEL, Server
from clients.shapes import CHAT, PROMPT, Weather

CLIENT = "llama-index-llms-openai-like"
MESSAGES = [ChatMessage(role="user", content=CHAT)]


def _model(server: Server, **options: bool) -> OpenAILike:
    return OpenAILike(
        model=MODEL, api_base=server.v1, api_key=KEY, context_window=2048, max_tokens=120, temperature=0, **options
    )


@pytest.fixture
def chat(server: Server) -> OpenAILike:
    return _model(server, is_chat_model=True, is_function_calling_model=True)


def test_completion(server: Server) -> None:
    """Text completions, whole and streamed."""
    model = _model(server, is_chat_model=False)
    whole = model.complete(PROMPT).text
    assert whole
    assert list(model.stream_complete(PROMPT))[-1].text == whole


def test_chat(chat: OpenAILike) -> None:
    """A chat, whole and streamed."""
    whole = chat.chat(MESSAGES).message.content
    assert whole
    assert list(chat.stream_chat(MESSAGES))[-1].message.content == whole


async def test_async_chat(chat: OpenAILike) -> None:
    """The asynchronous call, streamed."""
    assert "".join([part.delta or "" async for part in await chat.astream_chat(MESSAGES)])


def get_weather(unit: bool) -> str:
    """Look up the weather."""
    return "It is fine."


def test_tool_loop(chat: OpenAILike) -> None:
    """A required call, which is run, and its result."""
    tool = FunctionTool.from_defaults(get_weather)
    answer = chat.predict_and_call([tool], CHAT, tool_choice="required")
    assert answer.response == "It is fine."


def test_structured_output(chat: OpenAILike) -> None:
    """A pydantic class through a tool."""
    assert isinstance(chat.as_structured_llm(Weather).complete(CHAT).raw, Weather)


def test_structured_output_by_response_format(server: Server) -> None:
    """A pydantic class through a response format."""
    model = _model(server, is_chat_model=True, should_use_structured_outputs=True)
    assert isinstance(model.as_structured_llm(Weather).complete(CHAT).raw, Weather)


def test_responses(server: Server) -> None:
    """A chat through /v1/responses."""
    model = OpenAILikeResponses(
        model=MODEL, api_base=server.v1, api_key=KEY, context_window=2048, max_output_tokens=16, temperature=0
    )
    assert model.chat(MESSAGES).message.content
    assert "".join(part.delta or "" for part in model.stream_chat(MESSAGES))
