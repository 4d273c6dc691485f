"""Request bodies of OpenAI's routes."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from peregrine_router.api.openai.schemas import ChatRequest, CompletionRequest

MESSAGES = [{"role": "user", "content": "a"}]


def parse(model: type[BaseModel], /, **body: Any) -> dict[str, Any]:
    return model.model_validate_json(json.dumps(body)).model_dump()


@pytest.mark.parametrize("model", [CompletionRequest, ChatRequest])
def test_null_means_not_set(model: type[BaseModel]) -> None:
    """Every optional field may be null, which is the same as leaving it out."""
    required = {"prompt": "a", "messages": MESSAGES}
    nulls = {name: None for name, field in model.model_fields.items() if not field.is_required()}
    assert parse(model, **required, **nulls) == parse(model, **required)


def test_unknown_names_are_ignored() -> None:
    """A field that the server does not know is dropped."""
    assert "best_color" not in parse(CompletionRequest, prompt="a", best_color="red")


@pytest.mark.parametrize("seed", [-(2**63) - 1, 2**64, 1.5, "1"])
def test_seeds_have_64_bits(seed: Any) -> None:
    """A seed is a signed or unsigned 64-bit integer."""
    for bound in (-(2**63), 2**64 - 1):
        assert parse(CompletionRequest, prompt="a", seed=bound)["seed"] == bound
    with pytest.raises(ValidationError):
        parse(CompletionRequest, prompt="a", seed=seed)


@pytest.mark.parametrize("name", ["", "a b", "a" * 65])
def test_names_of_functions(name: str) -> None:
    """The name of a function has 1 to 64 letters, digits, dots, hyphens and underscores."""
    with pytest.raises(ValidationError):
        parse(ChatRequest, messages=MESSAGES, tools=[{"type": "function", "function": {"name": name}}])


FUNCTION = {"name": "dive", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}


@pytest.mark.parametrize(
    ("function_call", "tool_choice"),
    [
        (None, None),
        ("auto", "auto"),
        ("none", "none"),
        ({"name": "dive"}, {"type": "function", "function": {"name": "dive"}}),
    ],
)
def test_functions_are_tools(function_call: Any, tool_choice: Any) -> None:
    """`functions` and `function_call`, OpenAI's older fields, are `tools` and `tool_choice`."""
    legacy = parse(ChatRequest, messages=MESSAGES, functions=[FUNCTION], function_call=function_call)
    want = parse(ChatRequest, messages=MESSAGES, tools=[TOOL], tool_choice=tool_choice)
    assert (legacy["tools"], legacy["tool_choice"]) == (want["tools"], want["tool_choice"])


def test_tools_win_over_functions() -> None:
    """A request with both forms means the newer one."""
    body = parse(ChatRequest, messages=MESSAGES, functions=[FUNCTION], tools=[], function_call="none")
    assert (body["tools"], body["tool_choice"]) == ([], None)
