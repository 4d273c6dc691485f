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
        "of two places the last",
        "three alike before two",
        "two alike",
        "a repetition goes on",
        "one token over and over",
        "nothing alike",
        "one alike is too little",
        "two alike must be two places",
        "one token",
    ],
)
def test_what_is_found(tokens: list[int], count: int, found: list[int]) -> None:
    """The tokens behind the last earlier place that reads like the end."""
    assert propose_ngram(np.array(tokens, dtype=np.int32), count).tolist() == found
