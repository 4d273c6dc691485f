"""Readers of generated text: calls are found wherever they are, and everything else is content, however it is split."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peregrine_router.api.openai.call_reader import CallDelta, CallReader, Piece

NAMES = ("dive", "climb")
DIVE = '{"name": "dive", "arguments": {"to": 1}}'
CLIMB = '{"name": "climb", "arguments": {}}'
CALLS = {DIVE: ("dive", '{"to": 1}'), CLIMB: ("climb", "{}")}
Call = tuple[str, str]

FOUND = {
    DIVE: ("", [DIVE]),
    f" \n{DIVE}\n": ("", [DIVE]),
    f"I dive.\n{DIVE}": ("I dive.\n", [DIVE]),
    f"{DIVE} That was a dive.": (" That was a dive.", [DIVE]),
    f"First {DIVE} then {CLIMB}, done": ("First  then , done", [DIVE, CLIMB]),
    f"{DIVE}\n{CLIMB}\n{DIVE}": ("", [DIVE, CLIMB, DIVE]),
    f"[{DIVE}, {CLIMB}]": ("", [DIVE, CLIMB]),
    f"Both: [ {DIVE} ,{CLIMB}]!": ("Both: !", [DIVE, CLIMB]),
    f"```json\n{DIVE}\n```": ("", [DIVE]),
    f"Look:\n```json\n[{DIVE},\n{CLIMB}]\n```\nand\n```\n{CLIMB}\n```": ("Look:\n\nand\n", [DIVE, CLIMB, CLIMB]),
    f"```tool_call\n{DIVE}\n{CLIMB}\n```": ("", [DIVE, CLIMB]),
    f"```json\n{DIVE}\n": ("", [DIVE]),
    f"<tool_call>\n{DIVE}\n</tool_call>": ("", [DIVE]),
    f"<tool_call>{DIVE}</tool_call>\n<tool_call>{CLIMB}</tool_call>": ("", [DIVE, CLIMB]),
    f"<tool_call>[{DIVE}, {CLIMB}]</tool_call> ok": (" ok", [DIVE, CLIMB]),
    f"<tool_call>{DIVE}": ("", [DIVE]),
    f"<tool_call>{DIVE} so": ("<tool_call> so", [DIVE]),
    f"<tool_call><tool_call>{DIVE}</tool_call>": ("<tool_call>", [DIVE]),
    f"{{{DIVE}": ("{", [DIVE]),
    f"[1] {DIVE} [2](x)": ("[1]  [2](x)", [DIVE]),
    f'{{"name": "swim", "arguments": {{}}}} {DIVE}': ('{"name": "swim", "arguments": {}} ', [DIVE]),
    f'{{"name": "dive", "arguments": {{to: {DIVE}': ('{"name": "dive", "arguments": {to: ', [DIVE]),
    f"```python\nx = {{}}\n```\n{DIVE}": ("```python\nx = {}\n```\n", [DIVE]),
    f"a `b` c < d {DIVE}": ("a `b` c < d ", [DIVE]),
}
"""Text -> its content, and its calls."""

NO_CALLS = [
    "",
    " \n",
    "fine",
    "{",
    "```",
    "``",
    "<tool_call>",
    '{"a": 1}',
    '{"name": "swim", "arguments": {}}',
    '{"name": "di',
    '{"name": "dive"}',
    '{"name": "dive", "arguments": 1}',
    '{"name": "dive", "arguments": {"to": 1}',
    '{"name": "dive", "arguments": {"to": 1,}} or so',
    '{"name": "dive", "arguments": {to: 1}}',
    '{"name": "dive", "arguments": {"to": nowhere}}',
    '{"name": "dive", "arguments": {"to": "a\nb"}}',
    "{'name': 'dive', 'arguments': {}}",
    '{"name": "dive", "description": "d", "parameters": {"type": "object"}}',
    f'[{DIVE}, {{"name": "swim", "arguments": {{}}}}]',
    f"[{DIVE}, 1]",
    f"[{DIVE}",
    f'{{"answer": {DIVE}}}',
    f"```python\n{DIVE}\n```",
    f"```json\n{DIVE}\nand more\n```",
    '```json\n{"a": "```"}\n```',
    '<tool_call>{"name": "swim", "arguments": {}}</tool_call>',
    '<tool_call>{"name": "dive", "argum',
    "[link](url) and <b>, `code`, [[{",
]
"""Texts that are content as they stand; many look like calls at first."""


def read(deltas: Iterable[str], max_calls: int | None = None) -> tuple[str, list[Call]]:
    """Content and calls, put together as a client does."""
    reader = CallReader(NAMES, max_calls)
    pieces = [piece for delta in deltas for piece in reader.push(delta)]
    return joined([*pieces, *reader.end()])


def joined(pieces: list[Piece]) -> tuple[str, list[Call]]:
    """Content and calls of pieces, each of which adds something."""
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    calls: list[Call] = []
    for piece in pieces:
        assert piece != ""
        if isinstance(piece, CallDelta):
            if piece.name is not None:
                assert piece.index == len(calls)
                calls.append((piece.name, ""))
            calls[piece.index] = (calls[piece.index][0], calls[piece.index][1] + piece.arguments)
    return text, calls


def splits(text: str) -> Iterable[list[str]]:
    """The text by characters, and cut in two at every place."""
    yield list(text)
    yield from ([text[:at], text[at:]] for at in range(len(text) + 1))


@pytest.mark.parametrize("text", FOUND)
def test_calls_are_found_however_the_text_is_split(text: str) -> None:
    """Calls alone, in lists, one a line, in fences and in tags; text before, between and after them is content."""
    content, calls = FOUND[text]
    for split in splits(text):
        assert read(split) == (content, [CALLS[call] for call in calls]), split


@pytest.mark.parametrize("text", NO_CALLS)
def test_what_is_no_call_is_content_as_it_stands(text: str) -> None:
    """Unknown tools, broken JSON, other JSON, code and text that is cut off lose and gain no character."""
    for split in splits(text):
        assert read(split) == (text, []), split


PARTS = [*FOUND, *NO_CALLS, "```", "`", "<tool_call>", "</tool_call>", "[", "]", ",", "{", "}", "\n", '"', "\\", "é"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=6).map("".join), st.data())
def test_any_split_reads_as_the_whole(text: str, data: st.DataObject) -> None:
    """Any mixture of the above, split anywhere, gives what it gives in one piece."""
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(pieces) == read([text])


@settings(deadline=None)
@given(st.lists(st.sampled_from([DIVE, CLIMB]) | st.text(st.characters(exclude_characters="{[<`"), min_size=1)))
def test_content_and_calls_are_what_was_written(parts: list[str]) -> None:
    """Calls among any text are found in their order, and the text is kept but for white space between calls."""
    content, calls = read(["".join(parts)])
    assert calls == [CALLS[part] for part in parts if part in CALLS]
    assert "".join(content.split()) == "".join("".join(part for part in parts if part not in CALLS).split())


def test_text_flows_while_nothing_looks_like_a_call() -> None:
    """Text, other JSON and code are passed on at once: a client waits only for what may be a call."""
    for text in ("The falcon ", "dives {", '{"height": 1, ', '{"name": "Alice", ', "[1, ", "```python\nx = {"):
        reader = CallReader(NAMES)
        held = len("{") if text == "dives {" else 0
        assert sum(len(piece) for delta in text for piece in reader.push(delta) if isinstance(piece, str)) == (
            len(text) - held
        )


def test_arguments_come_in_pieces() -> None:
    """The first delta of a call has its name, the others some characters of the arguments each."""
    arguments = json.dumps({"text": "falcons " * 9})
    first, *others = CallReader(NAMES).push(f'{{"name": "dive", "arguments": {arguments}}}')
    assert first == CallDelta(0, "dive", "")
    assert len(others) > 5
    assert all(isinstance(piece, CallDelta) and piece.name is None for piece in others)


@pytest.mark.parametrize("text", [f"a {DIVE} b {CLIMB} c", f"a [{DIVE}, {CLIMB}] b  c"])
def test_calls_beyond_the_limit_are_dropped(text: str) -> None:
    """With a limit of one, the first call and all text are left."""
    content, calls = read([text], max_calls=1)
    assert calls == [CALLS[DIVE]]
    assert content.split() == ["a", "b", "c"]


@pytest.mark.parametrize("opening", ['{"arguments": ', "<tool_call>", "[{", "```json\n{", '[{"name": "dive", '])
def test_hostile_text_is_read_in_linear_time(opening: str) -> None:
    """Openings without end are read once, not once for each of them."""
    text = opening * 4000
    assert read([text[start : start + 3] for start in range(0, len(text), 3)]) == (text, [])
