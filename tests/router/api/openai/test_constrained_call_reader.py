"""Readers of constrained text: a call, a list of calls, or TGI's `no_tool`, however it is split."""

import json

import pytest

from peregrine_router.api.openai.call_reader import CallDelta, Piece
from peregrine_router.api.openai.constrained_call_reader import ConstrainedCallReader

DIVE = '{"name": "dive", "arguments": {"to": "}, {\\"name\\""}}'
CLIMB = '{ "name":"climb",\n"arguments": {}\n}'
WORDS = 'I "dive"\n\\ from the ☃, é and 😀.'


def read(text: str, no_tool: str | None = None) -> tuple[list[Piece], ConstrainedCallReader]:
    """Pieces of a text that comes a character at a time."""
    reader = ConstrainedCallReader(no_tool)
    pieces = [piece for character in text for piece in reader.push(character)]
    return [*pieces, *reader.end()], reader


def calls(pieces: list[Piece]) -> list[tuple[str | None, str]]:
    """(name, arguments) of each call, put together as a client does."""
    found: list[tuple[str | None, str]] = []
    for piece in pieces:
        assert isinstance(piece, CallDelta)
        if piece.name is not None:
            assert piece.index == len(found)
            found.append((piece.name, ""))
        found[piece.index] = (found[piece.index][0], found[piece.index][1] + piece.arguments)
    return found


def content(pieces: list[Piece]) -> str:
    """The text of pieces without calls."""
    assert all(isinstance(piece, str) for piece in pieces)
    return "".join(piece for piece in pieces if isinstance(piece, str))


def test_a_call_streams_as_it_comes() -> None:
    """A grammar guarantees the call, so its arguments are passed on before it is whole."""
    reader = ConstrainedCallReader()
    assert reader.push('{"name": "dive", "argu') == []
    assert reader.push('ments": {"to"') == [CallDelta(0, "dive", '{"to"')]
    assert (reader.push(": 1"), reader.num_calls) == ([CallDelta(0, None, ": 1")], 0)
    assert (reader.push("}}"), reader.num_calls) == ([CallDelta(0, None, "}")], 1)
    assert (reader.push("}"), reader.end()) == ([], [])


@pytest.mark.parametrize("text", [f"[{DIVE}, {CLIMB}]", f" [ {DIVE} ,\n{CLIMB} ] "])
def test_calls_of_a_list(text: str) -> None:
    """Each streams under its number; nothing is content. In one piece it reads the same."""
    want = [("dive", json.dumps(json.loads(DIVE)["arguments"])), ("climb", "{}")]
    pieces, reader = read(text)
    assert calls(pieces) == want
    assert (reader.num_calls, reader.is_after_call) == (2, True)
    assert calls(ConstrainedCallReader().push(text)) == want


def test_a_call_that_is_cut_off_before_its_name_is_text() -> None:
    """The part of a call that the limit of tokens leaves is not lost."""
    reader = ConstrainedCallReader()
    assert [*reader.push('{"name": "di'), *reader.end()] == ['{"name": "di']


@pytest.mark.parametrize("rest", [', {"name": "cl', ', {"name": "climb", "arguments": {"a'])
def test_a_second_call_that_is_cut_off(rest: str) -> None:
    """Whatever there is of it, the answer is not after a call: its reason is the limit of tokens."""
    pieces, reader = read(f"[{DIVE}{rest}")
    assert calls(pieces)[0] == ("dive", json.dumps(json.loads(DIVE)["arguments"]))
    assert (reader.num_calls, reader.is_after_call) == (1, False)


@pytest.mark.parametrize("is_ascii", [True, False])
def test_no_tool_is_content(is_ascii: bool) -> None:
    """Its argument is decoded as it comes, escapes too; it counts as no call."""
    call = json.dumps({"name": "no_tool", "arguments": {"content": WORDS}}, ensure_ascii=is_ascii)
    pieces, reader = read(call, no_tool="no_tool")
    assert len(pieces) > 20
    assert content(pieces) == WORDS
    assert (reader.num_calls, reader.is_after_call) == (0, False)
    assert content(ConstrainedCallReader("no_tool").push(call)) == WORDS


def test_no_tool_that_is_cut_off() -> None:
    """The text so far is content, JSON is not."""
    assert read('{"name": "no_tool", "arguments": {"content": "I di\\', no_tool="no_tool")[0] == list("I di")
    assert read('{"name": "no_tool", "arguments": {"con', no_tool="no_tool")[0] == []


def test_a_clients_tool_may_have_that_name() -> None:
    """Where TGI's is not among the tools, it is a call like any other."""
    pieces, _ = read('{"name": "no_tool", "arguments": {"content": ""}}')
    assert calls(pieces) == [("no_tool", '{"content": ""}')]
