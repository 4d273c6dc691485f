"""Log-probabilities of a prompt, chunk by chunk."""

import numpy as np

from fakes import make_tokenizer
from peregrine_router.engine.prompt_scores import PromptScores
from peregrine_server.protocol import PromptLogprobs, pack


def floats(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


def test_chunks_fill_in_the_scores() -> None:
    """Each chunk's numbers are those of its own positions, whatever the order; the first token has none."""
    tokenizer, scores = make_tokenizer(), PromptScores(4)
    scores.add(PromptLogprobs(0, 3, floats(-4.0), pack([9, 8]), floats(-0.5, -1.0)))
    scores.add(PromptLogprobs(0, 1, floats(-2.0, -3.0), pack([5, 6, 7, 5]), floats(-0.25, -2.0, -3.0, -3.5)))
    assert [token.logprob for token in scores.tokens([1, 2, 3, 4], tokenizer)] == [None, -2.0, -3.0, -4.0]
    top = [[(token.id, token.logprob) for token in row] for row in scores.top_tokens(tokenizer)]
    assert top == [[], [(5, -0.25), (6, -2.0)], [(7, -3.0), (5, -3.5)], [(9, -0.5), (8, -1.0)]]


def test_likeliest_tokens_are_optional() -> None:
    """A chunk without them leaves the rows empty."""
    scores = PromptScores(2)
    scores.add(PromptLogprobs(0, 1, floats(-2.0)))
    assert scores.top_tokens(make_tokenizer()) == ((), ())
