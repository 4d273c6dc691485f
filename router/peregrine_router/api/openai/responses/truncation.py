"""Truncation of conversations that do not fit in the context: the oldest turns go first."""

from collections.abc import Awaitable, Callable, Sequence

from peregrine_router.admission.prompts import Prompt, PromptTokenizer
from peregrine_router.admission.ranges import Rules
from peregrine_router.api.openai.responses.answer_schemas import Item
from peregrine_router.api.openai.responses.conversation import SYSTEM_ROLES


class ConversationPrompt:
    """A prompt of a conversation. If it is too long beside the output, it may be cut to the latest turns that fit, and
    the system messages at its beginning.

    A turn is a user's message and all that follows it. The last turn stays.
    """

    def __init__(
        self,
        items: Sequence[Item],
        render: Callable[[Sequence[Item]], Awaitable[Prompt]],
        *,
        max_output_tokens: int | None,
        truncates: bool,
    ) -> None:
        self.items = items
        """The conversation; once it is tokenized, the part of it that is in the prompt."""
        self._render = render
        self._num_output_tokens = max(max_output_tokens or 1, 1)
        self._truncates = truncates

    def rules(self, name: str) -> Rules:
        """None: rendering checks its own input."""
        yield from ()

    def min_tokens(self, tokenizer: PromptTokenizer) -> int:
        """Unknown before it is rendered, and cut."""
        return 0

    async def tokenize(self, tokenizer: PromptTokenizer) -> Prompt:
        """Renders the conversation, or the most of it that fits."""
        prompt = await self._render(self.items)
        info = tokenizer.info
        room = min(info.max_input_tokens, info.max_total_tokens - self._num_output_tokens)
        if not self._truncates or len(prompt.ids) <= room:
            return prompt
        self.items = await self._latest(room)
        return await self._render(self.items)

    async def _latest(self, room: int) -> Sequence[Item]:
        """The latest turns that fit in `room` tokens: bisects the turns, and renders for each."""
        head, starts = _head(self.items), _later_turns(self.items)
        low, high = 0, len(starts) - 1
        while low < high:
            middle = (low + high) // 2
            prompt = await self._render([*head, *self.items[starts[middle] :]])
            low, high = (low, middle) if len(prompt.ids) <= room else (middle + 1, high)
        return [*head, *self.items[starts[low] :]] if starts else self.items


def _head(items: Sequence[Item]) -> Sequence[Item]:
    """The system messages at the beginning."""
    is_system = [item["type"] == "message" and item["role"] in SYSTEM_ROLES for item in items]
    return items[: is_system.index(False)] if False in is_system else items


def _later_turns(items: Sequence[Item]) -> list[int]:
    """The places of the user's messages, but of one with which the conversation begins."""
    first = len(_head(items))
    places = [at for at, item in enumerate(items) if item["type"] == "message" and item["role"] == "user"]
    return [at for at in places if at > first]
