"""Sources of a prompt: text, token ids, or a chat template that is rendered once the request has been admitted."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from peregrine_router.admission.ranges import Rules
from peregrine_router.admission.rules import check, text_rules, vocabulary_rules
from peregrine_router.interfaces import ModelInfo


@dataclass(frozen=True, slots=True)
class Prompt:
    """The model's input: as a client reads it, and in tokens."""

    text: str
    ids: tuple[int, ...]


class PromptTokenizer(Protocol):
    """The part of the validator that a source needs; both methods raise InvalidRequest."""

    @property
    def info(self) -> ModelInfo:
        """The model's vocabulary."""

    def min_tokens(self, text: str) -> int:
        """A lower bound on the tokens of a text, without tokenizing it."""

    async def encode(self, text: str) -> tuple[int, ...]:
        """The tokens of a text."""

    async def decode(self, ids: tuple[int, ...]) -> str:
        """The text of tokens."""


class PromptSource(Protocol):
    """One of the three classes below."""

    def rules(self, name: str) -> Rules:
        """Checks that come before tokenization. `name` is the client's name for the prompt."""

    def min_tokens(self, tokenizer: PromptTokenizer) -> int:
        """A lower bound on its length, so that a prompt that cannot fit is refused before any work."""

    async def tokenize(self, tokenizer: PromptTokenizer) -> Prompt:
        """Text and tokens. Raises InvalidRequest."""


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """A prompt given as text."""

    text: str

    def rules(self, name: str) -> Rules:
        """Refuses text that no tokenizer should see."""
        return text_rules(self.text, name)

    def min_tokens(self, tokenizer: PromptTokenizer) -> int:
        """By the length of the text."""
        return tokenizer.min_tokens(self.text)

    async def tokenize(self, tokenizer: PromptTokenizer) -> Prompt:
        """Encodes the text."""
        return Prompt(self.text, await tokenizer.encode(self.text))


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """A prompt given as token ids."""

    ids: tuple[int, ...]

    def rules(self, name: str) -> Rules:
        """None: ids are checked against the vocabulary when they are decoded."""
        yield from ()

    def min_tokens(self, tokenizer: PromptTokenizer) -> int:
        """The number of ids."""
        return len(self.ids)

    async def tokenize(self, tokenizer: PromptTokenizer) -> Prompt:
        """Decodes the ids."""
        check(vocabulary_rules(self.ids, tokenizer.info))
        return Prompt(await tokenizer.decode(self.ids), self.ids)


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt that `render` makes, such as a chat through the model's template."""

    render: Callable[[], Awaitable[Prompt]]

    def rules(self, name: str) -> Rules:
        """None: `render` checks its own input."""
        yield from ()

    def min_tokens(self, tokenizer: PromptTokenizer) -> int:
        """Unknown before it is rendered: a template may leave messages out."""
        return 0

    async def tokenize(self, tokenizer: PromptTokenizer) -> Prompt:
        """Renders the prompt."""
        return await self.render()
