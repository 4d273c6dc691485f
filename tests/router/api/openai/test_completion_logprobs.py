"""Log-probabilities of completions whose tokens are parts of characters."""

from fakes import make_tokenizer
from peregrine_router.api.openai.completion_logprobs import CompletionLogprobsFormatter
from peregrine_router.request import Token

TEXT = "aé€b"


def byte_tokens() -> list[Token]:
    """A token for each byte of `TEXT`; the first without a log-probability."""
    tokenizer = make_tokenizer()
    id_of = {tokenizer.token_bytes(id): id for id in range(320)}
    ids = [id_of[bytes([byte])] for byte in TEXT.encode()]
    return [tokenizer.describe(id, None if at == 0 else -float(at)) for at, id in enumerate(ids)]


def test_parts_of_characters_are_told_apart() -> None:
    """Tokens that all read U+FFFD are named by their bytes, as OpenAI's are, and each keeps its own number."""
    tokens = byte_tokens()
    top = tuple(tokens[1:6])
    answer = CompletionLogprobsFormatter(make_tokenizer(), has_top=True).add(tokens[1:3], [top, top])
    assert answer["tokens"] == ["bytes:\\xc3", "bytes:\\xa9"]
    assert answer["top_logprobs"] is not None
    assert answer["top_logprobs"][0] == {
        "bytes:\\xc3": -1.0,
        "bytes:\\xa9": -2.0,
        "bytes:\\xe2": -3.0,
        "bytes:\\x82": -4.0,
        "bytes:\\xac": -5.0,
    }


def test_offsets_count_characters_of_the_text() -> None:
    """A character of several tokens is counted once, with its first."""
    answer = CompletionLogprobsFormatter(make_tokenizer(), has_top=False).add(byte_tokens(), [()] * 7)
    assert answer["text_offset"] == [0, 1, 2, 2, 3, 3, 3]
    assert answer["top_logprobs"] is None


def test_the_chosen_token_is_among_the_likeliest() -> None:
    """One that is not among them is added; one that is appears once."""
    _, chosen, other, *_ = byte_tokens()
    add = CompletionLogprobsFormatter(make_tokenizer(), has_top=True).add
    assert add([chosen], [(other,)])["top_logprobs"] == [{"bytes:\\xa9": -2.0, "bytes:\\xc3": -1.0}]
    assert add([chosen], [(chosen,)])["top_logprobs"] == [{"bytes:\\xc3": -1.0}]
