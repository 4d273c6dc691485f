"""Special tokens of a template are tokens; the same text in a message is text."""

from typing import Any

import pytest
from tokenizers import AddedToken

from fakes import EOS, make_tokenizer, train_backend
from peregrine_router.request import InvalidRequest
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.special_tokens import NONCHARACTERS, EscapedPrompt, SpecialTokenEscaper
from peregrine_router.text.tokenizer import Tokenizer

SENTINEL = NONCHARACTERS[0]


def test_text_without_special_tokens_is_untouched() -> None:
    """Nearly all messages are rendered as they came."""
    messages = [{"role": "user", "content": "the <fox> | a < b", "n": 3, "tags": ["x", None]}]
    assert SpecialTokenEscaper(make_tokenizer()).protect(messages, SENTINEL) == messages


def test_a_special_token_in_a_message_is_encoded_as_text() -> None:
    """Its spans are where the characters stand in the prompt without sentinels; the template's own is one token."""
    tokenizer = make_tokenizer()
    escaper = SpecialTokenEscaper(tokenizer)
    prompt = EscapedPrompt(escaper.protect(f"the {EOS}", SENTINEL) + EOS, SENTINEL)
    assert prompt.plain == f"the {EOS}{EOS}"
    assert escaper.encode(prompt) == (*tokenizer.encode(f"the {EOS}"), 0)
    assert list(escaper.spans(prompt))[-1] == (0, len(f"the {EOS}"), len(prompt.plain))


def test_a_sentinel_is_a_noncharacter_that_the_request_does_not_hold() -> None:
    """The first that is free; a request that holds them all is refused."""
    escaper = SpecialTokenEscaper(make_tokenizer())
    assert escaper.unused_sentinel("a" + NONCHARACTERS[0]) == NONCHARACTERS[1]
    with pytest.raises(InvalidRequest, match="noncharacter"):
        escaper.unused_sentinel("".join(NONCHARACTERS))


async def test_several_special_tokens() -> None:
    """Each of the template's own special tokens is one token, longest first; those in messages are text."""
    backend = train_backend()
    backend.add_special_tokens([AddedToken(each, special=True) for each in ("<|u|>", "<|u|>>", ">>Q<<")])
    tokenizer = Tokenizer(backend, frozenset({0}))
    chat = Chat(tokenizer, "<|u|>>{{ messages[0].content }}{{ messages[1].content }}>>Q<<<|u|>", {})
    ids = {name: tokenizer.special_tokens[name] for name in ("<|u|>", "<|u|>>", ">>Q<<")}
    for contents in (("a", "b"), ("<|u|>", ">>Q<<"), ("<|u", "|>"), (">>Q", "<<"), (">", "<"), ("\ufdd0", "<|u|>>")):
        prompt = await chat.render([{"role": "user", "content": each} for each in contents], None)
        encoded = chat.encode(prompt)
        assert [id for id in encoded if id in ids.values()] == [ids["<|u|>>"], ids[">>Q<<"], ids["<|u|>"]], contents
        assert prompt.plain == f"<|u|>>{''.join(contents)}>>Q<<<|u|>"
    await chat.close()


@pytest.mark.parametrize(
    ("special", "text"),
    [
        (">>>", ">>>>>>>>"),
        (">>>", "a>>>>>b>>>"),
        ("\u20ac", "a\u20ac\u20acb"),
        ("<| a|>", "<| a|><|"),
        ("<| a|>", "a|> <| \n"),
        ("<s>", "<s><s><s>"),
    ],
)
def test_no_special_token_is_left_in_a_message(special: str, text: str) -> None:
    """However its occurrences overlap, and whatever stands before and behind the message."""
    backend = train_backend()
    backend.add_special_tokens([AddedToken(special, special=True)])
    tokenizer = Tokenizer(backend, frozenset({0}))
    escaper, id = SpecialTokenEscaper(tokenizer), tokenizer.special_tokens[special]
    protected = escaper.protect(text, SENTINEL)
    for at in range(len(special)):
        for message in {protected, protected.strip(), protected.rstrip()}:
            prompt = EscapedPrompt(special[:at] + message + special[at:], SENTINEL)
            assert list(escaper.encode(prompt)).count(id) == (at == 0)


async def test_names_and_values_named_role_are_text() -> None:
    """Tools and arguments are the client's, whatever their names: none becomes a special token in a template that
    writes them as JSON."""
    tokenizer = make_tokenizer()
    chat = Chat(tokenizer, "{{ tools | tojson }}{{ messages | tojson }}", {})
    parameters = {"type": "object", "properties": {f"{EOS}system": {}, "role": EOS, "b": [{"role": EOS}]}}
    call = {"id": None, "type": "function", "function": {"name": "f", "arguments": {"role": EOS, EOS: 1}}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"role": "tool", "content": "b", "tool_calls": [call]},
    ]
    tools = [{"type": "function", "function": {"name": "f", "description": "", "parameters": parameters}}]
    prompt = await chat.render(messages, tools)
    assert 0 not in chat.encode(prompt)
    assert prompt.plain.count(EOS) == 5
    await chat.close()
