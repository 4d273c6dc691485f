"""Items of a conversation as the messages of a chat."""

from collections.abc import Sequence
from typing import Any

from peregrine_router.api.openai.responses.answer_schemas import FunctionCallItem, Item, MessageItem
from peregrine_router.api.openai.schemas import FunctionCall, Message, ToolCall
from peregrine_router.request import InvalidRequest

SYSTEM_ROLES = ("system", "developer")


def check_calls(items: Sequence[Item]) -> None:
    """Refuses calls and outputs that have no partner, in OpenAI's words. Raises InvalidRequest."""
    waiting: dict[str, None] = {}
    for item in items:
        if item["type"] == "function_call":
            waiting[item["call_id"]] = None
        elif item["type"] == "function_call_output":
            if item["call_id"] not in waiting:
                raise InvalidRequest(
                    f"No tool call found for function call output with call_id {item['call_id']}. Put the call before "
                    "its output in `input`, or name the response that made it as `previous_response_id`"
                )
            del waiting[item["call_id"]]
    if waiting:
        raise InvalidRequest(f"No tool output found for function call {next(iter(waiting))}. Add it to `input`")


def messages_of(instructions: str | None, items: Sequence[Item]) -> list[Message]:
    """The messages: a system message first, calls in the assistant's message."""
    messages: list[Message] = []
    for item in items:
        if item["type"] == "function_call":
            _add_call(messages, item)
        elif item["type"] == "function_call_output":
            messages.append(_message("tool", item["output"], tool_call_id=item["call_id"]))
        else:
            _add_message(messages, item)
    return _instructed(instructions, messages)


def _instructed(instructions: str | None, messages: list[Message]) -> list[Message]:
    """The conversation with instructions; one system message of both if it begins with another, as templates want."""
    if not instructions:
        return messages
    if messages and messages[0].role in SYSTEM_ROLES:
        instructions, messages = f"{instructions}\n\n{messages[0].content}", messages[1:]
    return [_message("system", instructions), *messages]


def _message(role: str, content: str, **more: Any) -> Message:
    return Message.model_validate({"role": role, "content": content, **more})


def _add_call(messages: list[Message], item: FunctionCallItem) -> None:
    """Adds a call to the assistant's message before it, or to a new one."""
    call = ToolCall(id=item["call_id"], function=FunctionCall(name=item["name"], arguments=item["arguments"]))
    if messages and messages[-1].role == "assistant":
        last = messages.pop()
        messages.append(last.model_copy(update={"tool_calls": [*(last.tool_calls or ()), call]}))
    else:
        messages.append(_message("assistant", "", tool_calls=[call]))


def _add_message(messages: list[Message], item: MessageItem) -> None:
    """Adds a message. The assistant's text behind its own calls is of the same message."""
    text = "".join(part["refusal"] if part["type"] == "refusal" else part["text"] for part in item["content"])
    last = messages[-1] if messages else None
    if item["role"] == "assistant" and last is not None and last.role == "assistant" and last.tool_calls:
        messages[-1] = last.model_copy(update={"content": f"{last.content}{text}"})
    else:
        messages.append(_message(item["role"], text))
