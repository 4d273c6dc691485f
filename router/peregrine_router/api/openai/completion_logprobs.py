"""Log-probabilities of text completions as OpenAI's JSON."""

from dataclasses import dataclass

from peregrine_router.api.openai.answer import finite
from peregrine_router.api.openai.answer_schemas import CompletionLogprobs
from peregrine_router.request import Token
from peregrine_router.text.tokenizer import REPLACEMENT, Tokenizer


@dataclass
class CompletionLogprobsFormatter:
    """Formats the tokens of one sequence; counts its characters for `text_offset`.

    A token that is part of a character is written as its bytes, like OpenAI's: "bytes:\\xe2\\x80".
    """

    tokenizer: Tokenizer
    has_top: bool
    num_characters: int = 0

    def add(self, tokens: list[Token], tops: list[tuple[Token, ...]]) -> CompletionLogprobs:
        offsets = []
        for token in tokens:
            offsets.append(self.num_characters)
            self.num_characters += _num_characters_begun(self.tokenizer.token_bytes(token.id))
        return {
            "tokens": [self._name(token.id) for token in tokens],
            "token_logprobs": [None if token.logprob is None else finite(token.logprob) for token in tokens],
            "top_logprobs": list(map(self._top, tokens, tops)) if self.has_top else None,
            "text_offset": offsets,
        }

    def _top(self, token: Token, top: tuple[Token, ...]) -> dict[str, float] | None:
        """Log-probabilities of the likeliest tokens and of the chosen one; None for the first of a prompt."""
        logprobs: dict[str, float] = {}
        ids = set()
        for each in (*top, token) if top else ():
            if each.id not in ids:
                ids.add(each.id)
                name = self._name(each.id)
                logprobs[f"token_id:{each.id}" if name in logprobs else name] = finite(each.logprob)
        return logprobs or None

    def _name(self, token_id: int) -> str:
        text = self.tokenizer.describe(token_id).text
        if REPLACEMENT not in text:
            return text
        data = self.tokenizer.token_bytes(token_id)
        return text if data == text.encode() else "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _num_characters_begun(data: bytes) -> int:
    """Characters of UTF-8 whose first byte is in `data`."""
    return sum(byte & 0xC0 != 0x80 for byte in data)
