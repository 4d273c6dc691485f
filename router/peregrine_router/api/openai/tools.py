"""Tool calls: what may be called, how the answer is constrained, and how a call is read from it.

A call is an answer of the form {"name": "<tool>", "arguments": {...}}. Where one is required, a JSON schema of exactly
that form constrains the answer. With `auto` the answer is free, and is a call if it begins like one: no Falcon has call
tokens of its own, and a constraint on "text or call" would forbid text that begins with a brace.
"""

import re
from dataclasses import dataclass
from typing import Any

from peregrine_router.admission.grammar_schema import GrammarSpec
from peregrine_router.api.openai.schemas import ChatRequest, Function, Tool, ToolChoice
from peregrine_router.http.errors import ToolError
from peregrine_router.request import InvalidRequest

COMPOSITE = frozenset({"$ref", "allOf", "anyOf", "oneOf", "patternProperties"})
"""With any of these a schema may have properties that it does not list itself."""


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """The tools of one request, as far as the model may call them."""

    tools: tuple[Tool, ...] = ()
    is_required: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What can be called."""
        return tuple(tool.function.name for tool in self.tools)

    @property
    def grammar(self) -> GrammarSpec | None:
        """The constraint on the answer, if it must be a call."""
        if not self.is_required:
            return None
        calls = [_call_schema(number, tool.function) for number, tool in enumerate(self.tools)]
        return GrammarSpec(type="json", value={"anyOf": calls}, json_schema=None)


def plan_tools(body: ChatRequest, max_tools: int) -> ToolPlan:
    """What `tools` and `tool_choice` come to. Raises ToolError or InvalidRequest."""
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


def describe_tools(plan: ToolPlan) -> list[dict[str, Any]]:
    """For a chat template that knows tools: OpenAI's form."""
    return [{"type": "function", "function": _describe(tool.function)} for tool in plan.tools]


class CallReader:
    """Reads one answer as it comes and tells text from a call: `push` and `end` give (text, call, arguments)."""

    _HEADER = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"arguments"\s*:\s*(?=\{)')
    _PIECES = ("{", '"name"', ":", None, ",", '"arguments"', ":", "{")

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._pending = ""
        self._is_text = not names
        self._scan = _ObjectScan()
        self.name: str | None = None
        """Of the tool that is called, once that is known."""
        self.is_complete = False
        """Whether the call's arguments have ended."""

    def push(self, delta: str) -> tuple[str, str]:
        """(text, arguments) that the delta adds; both empty while it is undecided."""
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
        """What was undecided when the answer ended: text."""
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
            wanted = [piece] if piece is not None else [f'"{name}"' for name in self._names]
            if any(each.startswith(rest) for each in wanted):
                return True
            found = next((each for each in wanted if rest.startswith(each)), None)
            if found is None:
                return False
            rest = rest[len(found) :]
        return False


class _ObjectScan:
    """Finds the end of a JSON object that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def find_end(self, text: str) -> int | None:
        """The position after the object's closing brace; None if it goes on."""
        for at, character in enumerate(text):
            if self._in_string:
                self._step_in_string(character)
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "]}":
                self._depth -= 1
                if self._depth == 0:
                    return at + 1
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


def _describe(function: Function) -> dict[str, Any]:
    return {
        "name": function.name,
        "description": function.description or "",
        "parameters": _parameters(function),
    }


def _call_schema(number: int, function: Function) -> dict[str, Any]:
    where = f"#/anyOf/{number}/properties/arguments"
    given = _parameters(function)
    # A model that may invent properties goes on inventing them.
    closed = {"additionalProperties": False} if "properties" in given and not COMPOSITE & given.keys() else {}
    arguments = {"type": "object", **closed, **_moved(given, where)}
    return {
        "type": "object",
        "properties": {"name": {"const": function.name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, where: str) -> Any:
    """The schema with its references to itself, which is now at `where`."""
    if isinstance(schema, list):
        return [_moved(each, where) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {name: _moved(each, where) for name, each in schema.items()}
    if isinstance(reference := schema.get("$ref"), str) and reference.startswith("#"):
        moved["$ref"] = where + reference[1:]
    return moved
