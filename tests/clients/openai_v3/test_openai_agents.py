"""openai-agents on /v1/responses, its default, and on chat completions."""

from typing import Literal

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from agents.models.interface import Model
from openai import AsyncOpenAI

from clients.server import KEY, MODEL, Server
from clients.shapes import CHAT, ENDS, Weather

CLIENT = "openai-agents"
SETTINGS = ModelSettings(extra_body=ENDS)
set_tracing_disabled(True)


@pytest.fixture(params=[OpenAIResponsesModel, OpenAIChatCompletionsModel], ids=["responses", "chat"])
def model(request: pytest.FixtureRequest, server: Server) -> Model:
    made: Model = request.param(MODEL, AsyncOpenAI(base_url=server.v1, api_key=KEY, max_retries=0))
    return made


async def test_text(model: Model) -> None:
    """An answer in text."""
    agent = Agent("brief", instructions="Be brief.", model=model, model_settings=SETTINGS)
    assert (await Runner.run(agent, CHAT)).final_output


async def test_streamed_text(model: Model) -> None:
    """Its deltas add up to the output."""
    agent = Agent("brief", model=model, model_settings=SETTINGS)
    result = Runner.run_streamed(agent, CHAT)
    events = [event async for event in result.stream_events()]
    deltas = [event.data.delta for event in events if event.type == "raw_response_event" and _is_text(event.data)]
    assert "".join(deltas) == result.final_output


def _is_text(data: object) -> bool:
    return getattr(data, "type", "") == "response.output_text.delta"


async def test_structured_output(model: Model) -> None:
    """A pydantic class as the output."""
    agent = Agent("typed", model=model, output_type=Weather)
    assert isinstance((await Runner.run(agent, CHAT)).final_output, Weather)


async def test_tool_loop(model: Model) -> None:
    """A required call, whose result goes back; the model then answers in text."""
    called = []

    @function_tool
    def weather(unit: Literal["C", "F"]) -> str:
        """Look up the weather."""
        called.append(unit)
        return "It is fine."

    settings = ModelSettings(extra_body=ENDS, tool_choice="required")
    result = await Runner.run(Agent("caller", model=model, tools=[weather], model_settings=settings), CHAT)
    assert called
    assert result.final_output


async def test_several_turns(model: Model) -> None:
    """A conversation that goes on from a result's items."""
    agent = Agent("brief", model=model, model_settings=SETTINGS)
    first = await Runner.run(agent, CHAT)
    assert (await Runner.run(agent, [*first.to_input_list(), {"role": "user", "content": "And now?"}])).final_output
