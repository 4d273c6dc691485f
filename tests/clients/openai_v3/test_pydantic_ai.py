"""pydantic-ai's agents on OpenAI's chat and responses models."""

from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic_ai import Agent, NativeOutput, RunContext, ToolOutput
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from clients.server import KEY, MODEL, Server
from clients.shapes import CHAT, Weather

CLIENT = "pydantic-ai-slim"
SETTINGS: Any = {"max_tokens": 120, "seed": 7}


@pytest.fixture(params=[OpenAIChatModel, OpenAIResponsesModel], ids=["chat", "responses"])
def model(request: pytest.FixtureRequest, server: Server) -> Model:
    client = AsyncOpenAI(base_url=server.v1, api_key=KEY, max_retries=0)
    made: Model = request.param(MODEL, provider=OpenAIProvider(openai_client=client))
    return made


async def test_text(model: Model) -> None:
    """An answer in text, with its usage."""
    result = await Agent(model, instructions="Be brief.", model_settings=SETTINGS).run(CHAT)
    assert result.output
    assert result.usage.output_tokens > 0


async def test_streamed_text(model: Model) -> None:
    """Deltas add up to the output."""
    async with Agent(model, model_settings=SETTINGS).run_stream(CHAT) as stream:
        deltas = [delta async for delta in stream.stream_text(delta=True, debounce_by=None)]
        assert "".join(deltas) == await stream.get_output()


@pytest.mark.parametrize("kind", [NativeOutput, ToolOutput])
async def test_structured_output(model: Model, kind: type) -> None:
    """A pydantic class as the output, by a response format and by a tool."""
    result = await Agent(model, output_type=kind(Weather), model_settings=SETTINGS).run(CHAT)
    assert isinstance(result.output, Weather)


async def test_streamed_structured_output(model: Model) -> None:
    """A structured output while it grows."""
    async with Agent(model, output_type=ToolOutput(Weather), model_settings=SETTINGS).run_stream(CHAT) as stream:
        grown = [output async for output in stream.stream_output(debounce_by=None)]
    assert isinstance(grown[-1], Weather)


async def test_tool_loop(model: Model) -> None:
    """The first step is made to call the tool; its result goes back and an answer comes."""
    called = []

    def weather(is_metric: bool) -> str:
        """Look up the weather."""
        called.append(is_metric)
        return "It is fine."

    def settings(context: RunContext) -> Any:
        return {**SETTINGS, "tool_choice": "required" if context.run_step < 2 else "none"}

    result = await Agent(model, tools=[weather], model_settings=settings).run(CHAT)
    assert called
    assert result.output
