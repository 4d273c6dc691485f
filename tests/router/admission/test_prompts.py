"""Prompts as text, as token ids, and from a template."""

from collections.abc import Iterator

import pytest

from fakes import INFO, make_tokenizer
from peregrine_router.admission.prompts import Prompt, PromptSource, RenderedPrompt, TextPrompt, TokenPrompt
from peregrine_router.admission.rules import check
from peregrine_router.admission.validator import Validator
from peregrine_router.request import InvalidRequest
from peregrine_router.settings import Settings

TEXT = "the quick fox"


@pytest.fixture
def validator() -> Iterator[Validator]:
    validator = Validator(make_tokenizer(), Settings(), INFO)
    yield validator
    validator.close()


async def test_text_and_its_tokens_are_the_same_prompt(validator: Validator) -> None:
    """The tokens of a text, sent as ids, become the same prompt."""
    prompt = await TextPrompt(TEXT).tokenize(validator)
    assert prompt.text == TEXT
    assert await TokenPrompt(prompt.ids).tokenize(validator) == prompt


async def test_a_template_is_rendered_after_the_checks(validator: Validator) -> None:
    """The checks before tokenization do not render; tokenizing returns the rendered prompt."""
    rendered: list[Prompt] = []

    async def render() -> Prompt:
        rendered.append(Prompt("a", (1,)))
        return rendered[-1]

    source = RenderedPrompt(render)
    check(source.rules("messages"))
    assert not rendered
    assert await source.tokenize(validator) is rendered[0]


@pytest.mark.parametrize("source", [TextPrompt(""), TextPrompt("a\0")])
def test_text_is_checked_before_it_is_tokenized(source: PromptSource) -> None:
    """Empty text and the NUL character are refused without a tokenizer, under the client's name for the prompt."""
    with pytest.raises(InvalidRequest, match=r"^`prompt` cannot"):
        check(source.rules("prompt"))


async def test_ids_are_checked_before_they_are_decoded(validator: Validator) -> None:
    """An id beyond the vocabulary is refused before the tokenizer sees it."""
    with pytest.raises(InvalidRequest, match="token 320 is not in the model's vocabulary"):
        await TokenPrompt((1, INFO.vocab_size)).tokenize(validator)
