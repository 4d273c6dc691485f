"""Tool calls: the tools that a request allows, the grammar of a required call, and the reader of calls in the output.

A call is JSON of the form {"name": "<tool>", "arguments": {...}}. If a call is required, the grammar of the output is
the JSON schema of that form. With `auto` the output is unconstrained, and calls are found in it: Falcon models have no
special tokens for calls, and a grammar of "text or call" would forbid text that begins with a brace.
"""

from dataclasses import dataclass
from typing import Any

from peregrine_router.admission.api_limits import set_by
from peregrine_router.admission.grammar_schema import GrammarSpec
from peregrine_router.api.openai.call_reader import CallReader, ConstrainedCallReader
from peregrine_router.api.openai.schemas import (
    AllowedTools,
    AllowedToolsChoice,
    ChatRequest,
    Function,
    Tool,
    ToolChoice,
)
from peregrine_router.http.errors import ToolError
from peregrine_router.request import InvalidRequest

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
"""Schema of a tool without `parameters`, which takes {}."""


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """The tools that the model may call in one request."""

    tools: tuple[Tool, ...] = ()
    is_required: bool = False
    max_calls: int | None = None
    """Most calls of one answer; None for no limit."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tools."""
        return tuple(tool.function.name for tool in self.tools)

    @property
    def grammar(self) -> GrammarSpec | None:
        """The grammar of a required call; None if no call is required."""
        if not self.is_required:
            return None
        calls = [_call_schema(number, tool.function) for number, tool in enumerate(self.tools)]
        is_strict = any(tool.function.strict for tool in self.tools)
        return GrammarSpec(
            type="json_schema", value={"schema": {"anyOf": calls}, "strict": is_strict}, json_schema=None
        )

    def reader(self) -> CallReader | ConstrainedCallReader | None:
        """A reader of one answer's calls; None if it can have none."""
        if self.is_required:
            return ConstrainedCallReader()
        return CallReader(self.names, self.max_calls) if self.tools else None


def plan_tools(body: ChatRequest, max_tools: int) -> ToolPlan:
    """Resolves `tools` and `tool_choice`. Raises ToolError or InvalidRequest."""
    tools, choice = tuple(body.tools or ()), body.tool_choice
    if len(tools) > max_tools:
        raise InvalidRequest(f"`tools` supports up to {max_tools} tools. Given: {len(tools)}{set_by('max_tools')}")
    if tools and body.response_format is not None and body.response_format.type != "text":
        raise ToolError("Grammar and tools are mutually exclusive")
    if isinstance(choice, AllowedToolsChoice):
        tools, choice = _allowed(tools, choice.allowed_tools), choice.allowed_tools.mode
    max_calls = 1 if body.parallel_tool_calls is False else None
    name = choice.function.name if isinstance(choice, ToolChoice) else choice
    if name == "none" or (not tools and name in (None, "auto")):
        return ToolPlan()
    if name in (None, "auto"):
        return ToolPlan(tools, max_calls=max_calls)
    if name == "required" and tools:
        return ToolPlan(tools, is_required=True)
    return ToolPlan((_named(tools, name),), is_required=True)


def tool_definitions(plan: ToolPlan) -> list[dict[str, Any]]:
    """Formats the tools for a chat template that supports tools, as OpenAI does."""
    return [{"type": "function", "function": _definition(tool.function)} for tool in plan.tools]


def _allowed(tools: tuple[Tool, ...], allowed: AllowedTools) -> tuple[Tool, ...]:
    return tuple(_named(tools, choice.function.name) for choice in allowed.tools)


def _named(tools: tuple[Tool, ...], name: str | None) -> Tool:
    found = next((tool for tool in tools if tool.function.name == name), None)
    if found is None:
        raise ToolError(f"Tool with name {name} not found")
    return found


def _parameters(function: Function) -> dict[str, Any]:
    return function.parameters or function.arguments or NO_PARAMETERS


def _definition(function: Function) -> dict[str, Any]:
    return {
        "name": function.name,
        "description": function.description or "",
        "parameters": _parameters(function),
    }


def _call_schema(number: int, function: Function) -> dict[str, Any]:
    where = f"#/anyOf/{number}/properties/arguments"
    given = _parameters(function)
    arguments = {"type": "object", **_rebased(given, where)}
    return {
        "type": "object",
        "properties": {"name": {"const": function.name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _rebased(schema: Any, where: str) -> Any:
    """Rewrites references within the schema to its new place `where`."""
    if isinstance(schema, list):
        return [_rebased(each, where) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {name: _rebased(each, where) for name, each in schema.items()}
    if isinstance(reference := schema.get("$ref"), str) and reference.startswith("#"):
        moved["$ref"] = where + reference[1:]
    return moved
