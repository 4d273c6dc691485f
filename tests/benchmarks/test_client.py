"""Tokens as the load client counts them."""

from typing import Any

import pytest
from benchmarks.load.client import OpenAI


@pytest.mark.parametrize(
    ("event", "token"),
    [
        ({"choices": [{"text": "a", "finish_reason": None}]}, "a"),
        ({"choices": [{"text": "b", "finish_reason": "length"}]}, "b"),
        ({"choices": [{"text": "", "finish_reason": "length"}]}, None),
        ({"choices": [], "usage": {"completion_tokens": 2}}, None),
    ],
)
def test_an_event_that_only_tells_the_end_is_no_token(event: dict[str, Any], token: str | None) -> None:
    """Servers report the end with the last token, or, as llama.cpp does, after it."""
    assert OpenAI("falcon").token(event) == token
