"""Tool calls: the tools that a request allows, the grammar of required calls, and the reader of calls in the output.

A call is JSON of the form {"name": "<tool>", "arguments": {...}}. If a call is required, the grammar of the output is
the JSON schema of that form, or of a list of calls. With `auto` the output is unconstrained, and calls are found in it:
Falcon models have no special tokens for calls, and a grammar of "text or call" would forbid text that begins with a
brace. If the text is to be JSON, the grammar is a call or that JSON. TGI's `auto` is a required call too, of one of the
tools or of `no_tool`, whose argument is the answer's text.
"""

from dataclasses import dataclass
from typing import Any

from peregrine_router.admission.api_limits import set_by
from peregrine_router.admission.grammar_schema import GrammarSpec, is_strict, schema_of
from peregrine_router.api.openai.call_reader import CallReader
from peregrine_router.api.openai.constrained_call_reader import ConstrainedCallReader
from peregrine_router.api.openai.schemas import (
    AllowedTools,
    AllowedToolsChoice,
    ChatRequest,
    Function,
    Tool,
    ToolChoice,
)
from peregrine_router.http.exceptions import ToolError
from peregrine_router.request import InvalidRequest

TGI_MODEL = "tgi"
"""Name of the model in requests that are written for TGI, as its documentation has it."""
NO_TOOL = Tool.model_validate(
    {
        "function": {
            "name": "no_tool",
            "description": "Open ended response with no specific tool selected",
            "parameters": {
                "type": "object",
                "properties": {"content": {"type": "string", "description": "The response content"}},
                "required": ["content"],
            },
        }
    }
)
"""TGI's tool for an answer in words; see `ConstrainedCallReader`."""
MAX_CALLS = 16
"""Most calls of a list that a grammar allows: a model that repeats itself comes to an end."""
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
"""Schema of a tool without `parameters`, which takes {}."""


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """The tools that the model may call in one request."""

    tools: tuple[Tool, ...] = ()
    is_required: bool = False
    max_calls: int | None = None
    """Most calls of one answer; None for no limit."""
    text_format: GrammarSpec | None = None
    """The JSON that an answer without a call is to be; None for free text."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tools."""
        return tuple(tool.function.name for tool in self.tools)

    @property
    def grammar(self) -> GrammarSpec | None:
        """The grammar of a required call or a list of them, or of these or JSON text; None if the output is free."""
        if not self.is_required and self.text_format is None:
            return None
        answers = [_call_schema(number, tool.function) for number, tool in enumerate(self.tools)]
        if self.max_calls != 1:
            calls = [{"$ref": f"#/anyOf/{number}"} for number in range(len(answers))]
            answers.append({"type": "array", "items": {"anyOf": calls}, "minItems": 1, "maxItems": MAX_CALLS})
        strict = any(tool.function.strict for tool in self.tools)
        if self.text_format is not None:
            answers.append(_rebased(schema_of(self.text_format), f"#/anyOf/{len(answers)}"))
            strict = strict or is_strict(self.text_format)
        return GrammarSpec(type="json_schema", value={"schema": {"anyOf": answers}, "strict": strict}, json_schema=None)

    def reader(self) -> CallReader | ConstrainedCallReader | None:
        """A reader of one answer's calls; None if it can have none."""
        if self.is_required:
            return ConstrainedCallReader(NO_TOOL.function.name if NO_TOOL in self.tools else None)
        return CallReader(self.names, self.max_calls) if self.tools else None


def plan_tools(body: ChatRequest, max_tools: int) -> ToolPlan:
    """Resolves `tools` and `tool_choice`. Raises ToolError or InvalidRequest."""
    tools, choice = tuple(body.tools or ()), body.tool_choice
    if len(tools) > max_tools:
        raise InvalidRequest(f"`tools` supports up to {max_tools} tools. Given: {len(tools)}{set_by('max_tools')}")
    text_format = _text_format(body)
    if isinstance(choice, AllowedToolsChoice):
        tools, choice = _allowed(tools, choice.allowed_tools), choice.allowed_tools.mode
    text_calls = 1 if body.parallel_tool_calls is False else None
    # A model that repeats itself would fill a list that nobody asked for up to the limit of tokens.
    grammar_calls = None if body.parallel_tool_calls else 1
    name = choice.function.name if isinstance(choice, ToolChoice) else choice
    if name == "none" or (not tools and name in (None, "auto")):
        return ToolPlan()
    if name in (None, "auto"):
        if _is_tgi_style(body) and all(tool.function.name != NO_TOOL.function.name for tool in tools):
            return ToolPlan((*tools, NO_TOOL), is_required=True, max_calls=1)
        return ToolPlan(tools, max_calls=grammar_calls if text_format else text_calls, text_format=text_format)
    if name == "required" and tools:
        return ToolPlan(tools, is_required=True, max_calls=grammar_calls)
    return ToolPlan((_named(tools, name),), is_required=True, max_calls=1)


def tool_definitions(plan: ToolPlan) -> list[dict[str, Any]]:
    """Formats the tools for a chat template that supports tools, as OpenAI does."""
    return [{"type": "function", "function": _definition(tool.function)} for tool in plan.tools]


def _text_format(body: ChatRequest) -> GrammarSpec | None:
    """The JSON of text beside tools; None if text is free. Raises ToolError for other grammars, and in TGI's words."""
    given = body.response_format
    if not body.tools or given is None or given.type == "text":
        return None
    if _is_tgi_style(body) or given.type in ("regex", "lark"):
        raise ToolError("Grammar and tools are mutually exclusive")
    return given


def _is_tgi_style(body: ChatRequest) -> bool:
    """Whether a request is in TGI's words: its name of the model, or its field `tool_prompt`."""
    return body.model == TGI_MODEL or body.tool_prompt is not None


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
