"""Log-probabilities of a token as chat completions and responses describe them."""

from collections.abc import Sequence

from peregrine_router.api.openai.answer import finite
from peregrine_router.api.openai.answer_schemas import ChatLogprob, TopLogprob
from peregrine_router.request import Token
from peregrine_router.text.tokenizer import Tokenizer


def chat_logprob(tokenizer: Tokenizer, token: Token, top: Sequence[Token]) -> ChatLogprob:
    """The token, and the most probable ones at its position."""
    return {**_described(tokenizer, token), "top_logprobs": [_described(tokenizer, each) for each in top]}


def _described(tokenizer: Tokenizer, token: Token) -> TopLogprob:
    text = tokenizer.describe(token.id).text
    return {"token": text, "logprob": finite(token.logprob), "bytes": list(tokenizer.token_bytes(token.id))}
