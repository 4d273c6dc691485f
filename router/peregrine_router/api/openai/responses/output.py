"""The output of a response: generated text, read into messages and calls, and the events of both."""

from collections.abc import Iterator

from peregrine_router.api.openai.answer_schemas import ChatLogprob
from peregrine_router.api.openai.call_reader import CallDelta, Piece
from peregrine_router.api.openai.responses.answer_schemas import ItemStatus, OutputItem
from peregrine_router.api.openai.responses.event_schemas import ResponseEvent
from peregrine_router.api.openai.responses.output_items import GrowingCall, GrowingMessage


class Output:
    """The items of one response, as they grow. There is one at least: of nothing generated, an empty message."""

    def __init__(self, numbers: Iterator[int]) -> None:
        """`numbers`: the stream's sequence numbers."""
        self._numbers = numbers
        self._ended: list[OutputItem] = []
        self._growing: GrowingMessage | GrowingCall | None = None
        self._logprobs: list[ChatLogprob] = []
        """Log-probabilities of tokens whose text is still to come."""

    def add(self, pieces: list[Piece], logprobs: list[ChatLogprob]) -> list[ResponseEvent]:
        """Appends what a token has decided. `logprobs`: the token's, if asked for; of calls there are none."""
        self._logprobs += logprobs
        events: list[ResponseEvent] = []
        for piece in pieces:
            events += self._add_call(piece) if isinstance(piece, CallDelta) else self._add_text(piece)
        return events

    def end(self, status: ItemStatus) -> list[ResponseEvent]:
        """Ends the last item with that status."""
        events = self._start(None) if self._growing is None else []
        if isinstance(self._growing, GrowingMessage):
            events += self._growing.add("", self._take_logprobs())
        return events + self._end_item(status)

    def items(self) -> list[OutputItem]:
        """All items, as they are now."""
        return [*self._ended, *([self._growing.item("incomplete")] if self._growing else [])]

    def _add_text(self, text: str) -> list[ResponseEvent]:
        if not text:
            return []
        events = [] if isinstance(self._growing, GrowingMessage) else self._start(None)
        assert isinstance(self._growing, GrowingMessage)
        return events + self._growing.add(text, self._take_logprobs())

    def _add_call(self, piece: CallDelta) -> list[ResponseEvent]:
        self._logprobs = []
        events = [] if piece.name is None else self._start(piece.name)
        assert isinstance(self._growing, GrowingCall)
        return events + self._growing.add(piece.arguments)

    def _start(self, name: str | None) -> list[ResponseEvent]:
        """Ends the item that grows, and begins a call of `name`, or a message."""
        events, index = self._end_item("completed"), len(self._ended)
        numbers = self._numbers
        self._growing = GrowingMessage(index, numbers) if name is None else GrowingCall(index, numbers, name)
        return events + self._growing.start()

    def _end_item(self, status: ItemStatus) -> list[ResponseEvent]:
        if self._growing is None:
            return []
        events = self._growing.end(status)
        self._ended.append(self._growing.item(status))
        self._growing = None
        return events

    def _take_logprobs(self) -> list[ChatLogprob]:
        taken, self._logprobs = self._logprobs, []
        return taken
