"""Items of the output in the making, and the events that tell of them."""

from collections.abc import Iterator

from peregrine_router.api.openai.answer_schemas import ChatLogprob
from peregrine_router.api.openai.chat_completions import new_call_id
from peregrine_router.api.openai.responses.answer_schemas import FunctionCallItem, ItemStatus, MessageItem, OutputText
from peregrine_router.api.openai.responses.event_schemas import ItemPlace, PartPlace, ResponseEvent
from peregrine_router.api.openai.responses.input_items import new_id


class GrowingMessage:
    """The model's message, with one part of text."""

    def __init__(self, index: int, numbers: Iterator[int]) -> None:
        """`index`: of the item in the output. `numbers`: the stream's sequence numbers."""
        self._numbers = numbers
        self._place: PartPlace = {"item_id": new_id("msg"), "output_index": index, "content_index": 0}
        self._texts: list[str] = []
        self._logprobs: list[ChatLogprob] = []

    def start(self) -> list[ResponseEvent]:
        """Its first events."""
        number, place = self._numbers, self._place
        return [
            {
                "type": "response.output_item.added",
                "sequence_number": next(number),
                "output_index": place["output_index"],
                "item": self._item("in_progress", []),
            },
            {
                "type": "response.content_part.added",
                "sequence_number": next(number),
                **place,
                "part": _output_text("", []),
            },
        ]

    def add(self, text: str, logprobs: list[ChatLogprob]) -> list[ResponseEvent]:
        """Appends text, and the log-probabilities of the tokens up to its end."""
        self._logprobs += logprobs
        if not text:
            return []
        self._texts.append(text)
        return [
            {
                "type": "response.output_text.delta",
                "sequence_number": next(self._numbers),
                **self._place,
                "delta": text,
                "logprobs": logprobs,
            }
        ]

    def end(self, status: ItemStatus) -> list[ResponseEvent]:
        """Its last events."""
        number, place, part = self._numbers, self._place, self._part()
        text, logprobs = part["text"], part["logprobs"]
        return [
            {
                "type": "response.output_text.done",
                "sequence_number": next(number),
                **place,
                "text": text,
                "logprobs": logprobs,
            },
            {"type": "response.content_part.done", "sequence_number": next(number), **place, "part": part},
            {
                "type": "response.output_item.done",
                "sequence_number": next(number),
                "output_index": place["output_index"],
                "item": self.item(status),
            },
        ]

    def item(self, status: ItemStatus) -> MessageItem:
        """The message so far."""
        return self._item(status, [self._part()])

    def _part(self) -> OutputText:
        return _output_text("".join(self._texts), self._logprobs)

    def _item(self, status: ItemStatus, parts: list[OutputText]) -> MessageItem:
        return {
            "id": self._place["item_id"],
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [*parts],
        }


class GrowingCall:
    """A call of a function."""

    def __init__(self, index: int, numbers: Iterator[int], name: str) -> None:
        """As for a message. `name`: of the function."""
        self._numbers = numbers
        self._name = name
        self._call_id = new_call_id()
        self._place: ItemPlace = {"item_id": new_id("fc"), "output_index": index}
        self._arguments: list[str] = []

    def start(self) -> list[ResponseEvent]:
        """Its first event."""
        return [
            {
                "type": "response.output_item.added",
                "sequence_number": next(self._numbers),
                "output_index": self._place["output_index"],
                "item": self.item("in_progress"),
            }
        ]

    def add(self, arguments: str) -> list[ResponseEvent]:
        """Appends a piece of the arguments."""
        if not arguments:
            return []
        self._arguments.append(arguments)
        return [
            {
                "type": "response.function_call_arguments.delta",
                "sequence_number": next(self._numbers),
                **self._place,
                "delta": arguments,
            }
        ]

    def end(self, status: ItemStatus) -> list[ResponseEvent]:
        """Its last events."""
        item = self.item(status)
        return [
            {
                "type": "response.function_call_arguments.done",
                "sequence_number": next(self._numbers),
                **self._place,
                "name": item["name"],
                "arguments": item["arguments"],
            },
            {
                "type": "response.output_item.done",
                "sequence_number": next(self._numbers),
                "output_index": self._place["output_index"],
                "item": item,
            },
        ]

    def item(self, status: ItemStatus) -> FunctionCallItem:
        """The call so far."""
        return {
            "id": self._place["item_id"],
            "type": "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": "".join(self._arguments),
        }


def _output_text(text: str, logprobs: list[ChatLogprob]) -> OutputText:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
