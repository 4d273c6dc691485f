"""Tool calls: the tools that a request allows, the grammar of a required call, and the parser of calls in the output.

A call is an output of the form {"name": "<tool>", "arguments": {...}}. If a call is required, the grammar of the output
is the JSON schema of that form. With `auto` the output is unconstrained, and is a call if it begins like one: Falcon
models have no special tokens for calls, and a grammar of "text or call" would forbid text that begins with a brace.
"""

import re
from dataclasses import dataclass
from typing import Any

from peregrine_router.admission.grammar_schema import GrammarSpec
from peregrine_router.api.openai.schemas import ChatRequest, Function, Tool, ToolChoice
from peregrine_router.http.errors import ToolError
from peregrine_router.request import InvalidRequest

COMPOSITE = frozenset({"$ref", "allOf", "anyOf", "oneOf", "patternProperties"})
"""Keywords by which a schema can have properties that it does not list itself."""


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """The tools that the model may call in one request."""

    tools: tuple[Tool, ...] = ()
    is_required: bool = False

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
        return GrammarSpec(type="json", value={"anyOf": calls}, json_schema=None)


def plan_tools(body: ChatRequest, max_tools: int) -> ToolPlan:
    """Resolves `tools` and `tool_choice`. Raises ToolError or InvalidRequest."""
    tools, choice = tuple(body.tools or ()), body.tool_choice
    if len(tools) > max_tools:
        raise InvalidRequest(f"`tools` supports up to {max_tools} tools. Given: {len(tools)}")
    if tools and body.response_format is not None and body.response_format.type != "text":
        raise ToolError("Grammar and tools are mutually exclusive")
    name = choice.function.name if isinstance(choice, ToolChoice) else choice
    if name == "none" or (not tools and name in (None, "auto")):
        return ToolPlan()
    if name in (None, "auto"):
        return ToolPlan(tools)
    if name == "required" and tools:
        return ToolPlan(tools, is_required=True)
    chosen = tuple(tool for tool in tools if tool.function.name == name)
    if not chosen:
        raise ToolError(f"Tool with name {name} not found")
    return ToolPlan(chosen[:1], is_required=True)


def tool_definitions(plan: ToolPlan) -> list[dict[str, Any]]:
    """Formats the tools for a chat template that supports tools, as OpenAI does."""
    return [{"type": "function", "function": _definition(tool.function)} for tool in plan.tools]


class CallReader:
    """Incremental parser of one sequence's text, which is either plain text or a call."""

    _HEADER = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"arguments"\s*:\s*(?=\{)')
    _PIECES = ("{", '"name"', ":", None, ",", '"arguments"', ":", "{")

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._pending = ""
        self._is_text = not names
        self._scan = _ObjectScan()
        self.name: str | None = None
        """Name of the called tool; None while undecided, and for plain text."""
        self.is_complete = False
        """Whether the call's arguments have ended."""

    def push(self, delta: str) -> tuple[str, str]:
        """Parses a delta. Returns the (text, arguments) that it adds; both are empty while undecided."""
        if self._is_text:
            return delta, ""
        if self.name is not None:
            return "", self._arguments(delta)
        self._pending += delta
        header = self._HEADER.match(self._pending)
        if header and header[1] in self._names:
            self.name = header[1]
            return "", self._arguments(self._pending[header.end() :])
        if not header and self._may_become_a_call():
            return "", ""
        return self.end(), ""

    def end(self) -> str:
        """Ends the input. Returns the undecided rest, which is plain text."""
        self._is_text = self.name is None
        text, self._pending = self._pending if self._is_text else "", ""
        return text

    def _arguments(self, delta: str) -> str:
        if self.is_complete:
            return ""
        length = self._scan.find_end(delta)
        self.is_complete = length is not None
        return delta[:length]

    def _may_become_a_call(self) -> bool:
        rest = self._pending
        for piece in self._PIECES:
            rest = rest.lstrip()
            expected = [piece] if piece is not None else [f'"{name}"' for name in self._names]
            if any(token.startswith(rest) for token in expected):
                return True
            found = next((token for token in expected if rest.startswith(token)), None)
            if found is None:
                return False
            rest = rest[len(found) :]
        return False


class _ObjectScan:
    """Finds the end of a JSON object that arrives in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def find_end(self, text: str) -> int | None:
        """Returns the position after the object's closing brace; None if the object continues."""
        for position, character in enumerate(text):
            if self._in_string:
                self._step_in_string(character)
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "]}":
                self._depth -= 1
                if self._depth == 0:
                    return position + 1
        return None

    def _step_in_string(self, character: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif character == "\\":
            self._is_escaped = True
        elif character == '"':
            self._in_string = False


def _parameters(function: Function) -> dict[str, Any]:
    return function.parameters or function.arguments or {"type": "object"}


def _definition(function: Function) -> dict[str, Any]:
    return {
        "name": function.name,
        "description": function.description or "",
        "parameters": _parameters(function),
    }


def _call_schema(number: int, function: Function) -> dict[str, Any]:
    where = f"#/anyOf/{number}/properties/arguments"
    given = _parameters(function)
    # If further properties are allowed, small models keep inventing them.
    closed = {"additionalProperties": False} if "properties" in given and not COMPOSITE & given.keys() else {}
    arguments = {"type": "object", **closed, **_rebased(given, where)}
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
