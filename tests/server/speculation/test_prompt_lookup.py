"""Prompt lookup."""

import numpy as np
import pytest

from peregrine_server.speculation.prompt_lookup import propose_ngram


@pytest.mark.parametrize(
    ("tokens", "count", "found"),
    [
        ([1, 2, 3, 4, 5, 9, 1, 2, 3], 2, [4, 5]),
        ([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], 1, [5]),
        ([1, 2, 3, 4, 0, 2, 3, 5, 1, 2, 3], 1, [4]),
        ([0, 2, 3, 4, 1, 2, 3], 2, [4, 1]),
        ([7, 8, 7, 8], 5, [7, 8, 7, 8, 7]),
        ([6, 6, 6], 3, [6, 6, 6]),
        ([1, 2, 3, 4], 2, []),
        ([1, 3, 2, 3], 2, []),
        ([5, 5], 2, []),
        ([5], 2, []),
    ],
    ids=[
        "what followed",
        "the last of two matches",
        "three tokens before two",
        "two tokens",
        "a repetition goes on",
        "one token over and over",
        "no match",
        "one token is too short",
        "a match needs two tokens before the end",
        "one token",
    ],
)
def test_the_draft_is_what_followed_the_match(tokens: list[int], count: int, found: list[int]) -> None:
    """It holds the tokens behind the last earlier occurrence of the longest matching n-gram."""
    assert propose_ngram(np.array(tokens, dtype=np.int32), count).tolist() == found
