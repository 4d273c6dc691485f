"""Conversion of OpenAI's messages into the form that chat templates expect."""

import json
from typing import Any

from peregrine_router.api.openai.schemas import ChatRendering, ChatRequest, ContentPart, Message, ToolCall
from peregrine_router.api.openai.tools import ToolPlan, tool_definitions
from peregrine_router.request import InvalidRequest
from peregrine_router.text.chat_template import Chat, Rendering
from peregrine_router.text.special_tokens import EscapedPrompt

TOOL_PROMPT = (
    'To call a function, answer with nothing but JSON of the form {"name": <its name>, "arguments": <an object>}. '
    "These functions can be called:"
)
TEMPLATE_ROLES = {"developer": "system", "function": "tool"}
"""OpenAI's role -> the role by which chat templates know it."""
RESERVED = ("messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template")
"""Arguments of transformers' apply_chat_template that are no variables of a client's own."""
TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
"""Types of content parts that are text: of chat completions, and of responses, whose parts clients send here too."""


def plain_messages(messages: list[Message]) -> list[dict[str, Any]]:
    """Converts messages: content as one text, arguments of calls as objects. Raises InvalidRequest."""
    return [_plain(message) for message in messages]


async def render_chat(chat: Chat, body: ChatRequest, plan: ToolPlan) -> EscapedPrompt:
    """Renders a request's prompt. Raises InvalidRequest or TemplateError."""
    messages, rendering = plain_messages(body.messages), rendering_of(body, body.messages[-1])
    if chat.knows_tools:
        return await chat.render(messages, tool_definitions(plan) or None, rendering)
    return await chat.render(explain_tools(messages, plan, body.tool_prompt), None, rendering)


def rendering_of(body: ChatRendering, last: Message) -> Rendering:
    """Resolves the fields that say how to render; `last` is the last message. Raises InvalidRequest."""
    is_begun, is_continued = body.add_generation_prompt, body.continue_final_message
    variables = body.chat_template_kwargs or {}
    if name := next((name for name in RESERVED if name in variables), None):
        raise InvalidRequest(f"`chat_template_kwargs` cannot hold `{name}`: give it as a field of the request")
    if is_continued and is_begun:
        raise InvalidRequest("`continue_final_message` and `add_generation_prompt` cannot both be true")
    if is_continued and (last.tool_calls or last.function_call or not _content(last).strip()):
        raise InvalidRequest("`continue_final_message` needs a last message with text and without calls")
    if is_begun is not None and is_continued is None:
        # Who asks for the next turn, or for none, does not mean the last one to go on.
        is_continued = False
    return Rendering(is_continued, is_begun is not False, variables)


def explain_tools(messages: list[dict[str, Any]], plan: ToolPlan, prompt: str | None) -> list[dict[str, Any]]:
    """Writes tools as text for a template without them: tools in the system message, calls as the assistant's text,
    results as the user's."""
    as_text = [_as_text(message) for message in messages]
    if not plan.tools:
        return as_text
    lines = [json.dumps(tool["function"], ensure_ascii=False) for tool in tool_definitions(plan)]
    text = "\n".join([prompt or TOOL_PROMPT, *lines])
    if as_text[0]["role"] == "system":
        return [{**as_text[0], "content": f"{as_text[0]['content']}\n\n{text}"}, *as_text[1:]]
    return [{"role": "system", "content": text}, *as_text]


def _plain(message: Message) -> dict[str, Any]:
    role = TEMPLATE_ROLES.get(message.role, message.role)
    plain: dict[str, Any] = {"role": role, "content": _content(message)}
    if message.name is not None:
        plain["name"] = message.name
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    if calls := _calls(message):
        plain["tool_calls"] = [_call(call) for call in calls]
    return plain


def _calls(message: Message) -> list[ToolCall]:
    if message.tool_calls or message.function_call is None:
        return message.tool_calls or []
    return [ToolCall(id=None, function=message.function_call)]


def _content(message: Message) -> str:
    content = message.refusal if message.content is None else message.content
    if content is None:
        return ""
    text = content if isinstance(content, str) else "".join(_text(part) for part in content)
    if "\0" in text:
        raise InvalidRequest("`messages` cannot contain the NUL character")
    return text


def _text(part: ContentPart) -> str:
    text = part.refusal if part.type == "refusal" else part.text
    if part.type not in TEXT_PARTS or text is None:
        raise InvalidRequest(f"`messages` can hold parts of the type text only. Given: {part.type[:32]}")
    return text


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": _parsed(call.function.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _parsed(arguments: str | dict[str, Any]) -> Any:
    if isinstance(arguments, dict):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _as_text(message: dict[str, Any]) -> dict[str, Any]:
    if calls := message.get("tool_calls"):
        lines = [json.dumps(call["function"], ensure_ascii=False) for call in calls]
        return {"role": "assistant", "content": "\n".join(filter(None, [message["content"], *lines]))}
    if message["role"] == "tool":
        return {"role": "user", "content": f"Result: {message['content']}"}
    return message
