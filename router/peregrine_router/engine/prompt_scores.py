"""Log-probabilities of a prompt's tokens, filled in chunk by chunk while the prompt is computed."""

from collections.abc import Sequence

from peregrine_router.request import Token
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.protocol import PromptLogprobs, unpack, unpack_floats


class PromptScores:
    """One list for the sequences of a prompt: its tokens' log-probabilities, and the likeliest tokens in their places.
    The first token has neither."""

    def __init__(self, num_tokens: int) -> None:
        self._logprobs: list[float | None] = [None] * num_tokens
        self._top: list[list[tuple[int, float]]] = [[] for _ in range(num_tokens)]

    def add(self, chunk: PromptLogprobs) -> None:
        """Sets the scores of a chunk's tokens."""
        values = unpack_floats(chunk.logprobs).tolist()
        end = chunk.start + len(values)
        if not 0 < chunk.start <= end <= len(self._logprobs):
            raise ValueError(f"the shards scored tokens {chunk.start} to {end} of a prompt of {len(self._logprobs)}")
        self._logprobs[chunk.start : end] = values
        if chunk.top_token_ids:
            ids = unpack(chunk.top_token_ids).reshape(len(values), -1).tolist()
            logprobs = unpack_floats(chunk.top_logprobs).reshape(len(values), -1).tolist()
            self._top[chunk.start : end] = [list(zip(*row, strict=True)) for row in zip(ids, logprobs, strict=True)]

    def tokens(self, prompt_ids: Sequence[int], tokenizer: Tokenizer) -> tuple[Token, ...]:
        """The prompt's tokens."""
        return tuple(map(tokenizer.describe, prompt_ids, self._logprobs))

    def top_tokens(self, tokenizer: Tokenizer) -> tuple[tuple[Token, ...], ...]:
        """The likeliest tokens in the place of each."""
        return tuple(tuple(tokenizer.describe(id, logprob) for id, logprob in row) for row in self._top)
