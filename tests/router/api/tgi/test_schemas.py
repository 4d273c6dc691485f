"""JSON bodies of TGI's routes, and how they are documented."""

import msgspec
from pydantic import TypeAdapter

from peregrine_router.api.tgi.schemas import StreamEvent, StreamResponse, TokenJson
from peregrine_router.request import Token


def test_a_stream_event_is_documented_as_it_is_sent() -> None:
    """The documented fields of an event are those that are encoded; only top tokens may be missing."""
    schema = TypeAdapter(StreamResponse).json_schema()
    event = StreamEvent(1, Token(7, " a", -0.5))
    assert schema["title"] == "StreamResponse"
    assert set(schema["required"]) == set(msgspec.to_builtins(event))
    event.top_tokens = (Token(8, " b"),)
    assert set(schema["properties"]) == set(msgspec.to_builtins(event))


def test_a_token_is_documented_as_it_is_sent() -> None:
    """All documented fields of a token are sent, a missing log-probability as null."""
    schema = TypeAdapter(TokenJson).json_schema()
    assert set(schema["required"]) == set(schema["properties"]) == set(msgspec.to_builtins(Token(7, " a")))
