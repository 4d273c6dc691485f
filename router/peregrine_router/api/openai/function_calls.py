"""Answers to requests with `functions`, the older form of `tools`: one `function_call` in place of `tool_calls`."""

from peregrine_router.api.openai.answer_schemas import AssistantMessage, ChatChunk, ChatCompletion, FinishReason
from peregrine_router.api.openai.chat_completions import ChatAnswer
from peregrine_router.http.sequence_output import SequenceOutput
from peregrine_router.request import TokenEvent


class FunctionChatAnswer(ChatAnswer):
    """A `ChatAnswer` in the older form."""

    def whole(self, outputs: list[SequenceOutput]) -> ChatCompletion:
        """The answer that is not streamed."""
        answer = super().whole(outputs)
        for choice in answer["choices"]:
            choice["message"] = _in_older_form(choice["message"])
            choice["finish_reason"] = _reason(choice["finish_reason"])
        return answer

    def event(self, number: int, event: TokenEvent) -> list[ChatChunk]:
        """The chunks of a token; see `ChatAnswer`."""
        chunks = super().event(number, event)
        for choice in (choice for chunk in chunks for choice in chunk["choices"]):
            choice["delta"] = _in_older_form(choice["delta"])
            choice["finish_reason"] = choice["finish_reason"] and _reason(choice["finish_reason"])
        return chunks


def _in_older_form(message: AssistantMessage) -> AssistantMessage:
    """The message or delta with its first call as `function_call`: `functions` know no second one."""
    if "tool_calls" not in message:
        return message
    calls = message.pop("tool_calls")
    first = [call["function"] for call in calls if call.get("index", 0) == 0]
    return {**message, "function_call": first[0]} if first else message


def _reason(reason: FinishReason) -> FinishReason:
    return "function_call" if reason == "tool_calls" else reason
