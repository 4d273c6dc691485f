"""A request for a response as the chat request that asks for the same."""

from collections.abc import Sequence

from peregrine_router.admission.generate_parameters import CommonParameters
from peregrine_router.admission.grammar_schema import GrammarSpec, JsonSchemaFormat
from peregrine_router.api.openai.responses.answer_schemas import Item
from peregrine_router.api.openai.responses.conversation import check_calls, messages_of
from peregrine_router.api.openai.responses.schemas import FunctionTool, ResponseRequest, ResponseToolChoice, TextFormat
from peregrine_router.api.openai.schemas import (
    AllowedTools,
    AllowedToolsChoice,
    ChatRequest,
    FunctionName,
    Tool,
    ToolChoice,
)
from peregrine_router.request import InvalidRequest


def chat_request(body: ResponseRequest, items: Sequence[Item]) -> ChatRequest:
    """The chat of `items`, the whole conversation. It names no model: "tgi" would be a request in TGI's words. Raises
    InvalidRequest."""
    check_calls(items)
    messages = messages_of(body.instructions, items)
    if not messages:
        raise InvalidRequest("`input` cannot be empty: it needs a message")
    common = {name: getattr(body, name) for name in CommonParameters.model_fields}
    return ChatRequest(
        **common,
        messages=messages,
        max_completion_tokens=body.max_output_tokens,
        seed=body.seed,
        stream=body.stream,
        logprobs=body.has_logprobs,
        top_logprobs=body.top_logprobs,
        response_format=_response_format(body.text.format) if body.text and body.text.format else None,
        tools=[_tool(tool) for tool in body.tools or ()],
        tool_choice=_tool_choice(body.tool_choice),
        parallel_tool_calls=body.parallel_tool_calls,
    )


def _response_format(given: TextFormat) -> GrammarSpec:
    if given.type != "json_schema":
        return GrammarSpec(type=given.type, value=None, json_schema=None)
    schema = JsonSchemaFormat(name=given.name, schema=given.schema_, strict=given.strict)
    return GrammarSpec(type="json_schema", value=None, json_schema=schema)


def _tool(given: FunctionTool) -> Tool:
    return Tool(function=given)


def _tool_choice(given: str | ResponseToolChoice | None) -> str | ToolChoice | AllowedToolsChoice | None:
    if not isinstance(given, ResponseToolChoice):
        return given
    if given.type == "function":
        return _named(given.name)
    tools = [_named(tool.name) for tool in given.tools or ()]
    return AllowedToolsChoice(type="allowed_tools", allowed_tools=AllowedTools(mode=given.mode, tools=tools))


def _named(name: str | None) -> ToolChoice:
    return ToolChoice(function=FunctionName(name=name or ""))
