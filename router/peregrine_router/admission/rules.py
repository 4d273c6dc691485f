"""Rules that a request must satisfy: TGI's checks, in its order and wording, with a few more. Pure functions."""

import re
from collections.abc import Sequence

from peregrine_router.admission.generate_parameters import MAX_TIMEOUT, GenerateParameters
from peregrine_router.admission.parameters import has_warper, implies_sampling, range_rules
from peregrine_router.admission.ranges import Rules
from peregrine_router.interfaces import ModelInfo
from peregrine_router.request import InvalidRequest
from peregrine_router.settings import Settings

REQUEST_TIMEOUT = "x-request-timeout"
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)


def check(rules: Rules) -> None:
    """Raises InvalidRequest for the first rule that is broken."""
    for is_broken, message in rules:
        if is_broken:
            raise InvalidRequest(message)


def is_sampling(given: GenerateParameters) -> bool:
    """Whether tokens are drawn: asked for by `do_sample`, or implied by another parameter."""
    return bool(given.do_sample) or implies_sampling(given)


def parse_timeout(header: str) -> float:
    """Parses the header `x-request-timeout`, in seconds. Raises InvalidRequest."""
    seconds = float(header) if _NUMBER.fullmatch(header) else 0.0
    if not 0.0 < seconds <= MAX_TIMEOUT:
        message = f"`{REQUEST_TIMEOUT}` must be seconds, > 0 and <= {MAX_TIMEOUT:.0f}. Given: {header[:64]!r}"
        raise InvalidRequest(message)
    return seconds


def stream_rules(given: GenerateParameters) -> Rules:
    """Options that TGI does not stream."""
    yield given.best_of not in (None, 1), "`best_of` != 1 is not supported when streaming tokens"
    yield bool(given.decoder_input_details), "`decoder_input_details` == true is not supported when streaming tokens"


def count_rules(best_of: int, settings: Settings) -> Rules:
    """Number of sequences of one prompt."""
    largest = settings.max_best_of
    yield largest == 1 and best_of != 1, "`best_of` != 1 is not allowed for this endpoint"
    yield not 1 <= best_of <= largest, f"`best_of` must be > 0 and <= {largest}. Given: {best_of}"


def parameter_rules(given: GenerateParameters, settings: Settings) -> Rules:
    """Parameters that need no prompt to be checked."""
    best_of = given.best_of or 1
    needs_sampling = best_of > 1 and not given.do_sample and not has_warper(given)
    yield needs_sampling, "you must use sampling when `best_of` is > 1"
    yield from range_rules(given)
    yield given.max_new_tokens == 0, "`max_new_tokens` must be strictly positive"
    yield from _stop_rules(given, settings)
    yield best_of > 1 and given.seed is not None, "`seed` must not be set when `best_of` > 1"
    top_n, max_top_n = given.top_n_tokens or 0, settings.max_top_n_tokens
    yield top_n > max_top_n, f"`top_n_tokens` must be >= 0 and <= {max_top_n}. Given: {top_n}"


def text_rules(inputs: str, name: str) -> Rules:
    """Prompt as text."""
    yield not inputs, f"`{name}` cannot be empty"
    yield "\0" in inputs, f"`{name}` cannot contain the NUL character"


def truncate_rules(truncate: int | None, info: ModelInfo) -> Rules:
    """Number of prompt tokens to keep."""
    limit = info.max_input_tokens
    message = f"`truncate` must be strictly positive and less than {limit}. Given: {truncate}"
    yield truncate is not None and not 0 < truncate <= limit, message


def length_rules(prompt_ids: Sequence[int], max_new_tokens: int, info: ModelInfo, name: str) -> Rules:
    """Lengths of prompt and output in tokens, against the server's limits; the prompt against the vocabulary."""
    length = len(prompt_ids)
    yield length == 0, f"`{name}` cannot be empty"
    yield (
        length + max_new_tokens > info.max_total_tokens,
        f"`{name}` tokens + `max_new_tokens` must be <= {info.max_total_tokens}. "
        f"Given: {length} `{name}` tokens and {max_new_tokens} `max_new_tokens`",
    )
    too_long = f"`{name}` must have less than {info.max_input_tokens} tokens. Given: {length}"
    yield length > info.max_input_tokens, too_long
    yield from vocabulary_rules(prompt_ids, info)


def vocabulary_rules(prompt_ids: Sequence[int], info: ModelInfo) -> Rules:
    """Token ids without an embedding: added to a tokenizer after training, or invented by a client."""
    largest = max(prompt_ids)
    yield largest >= info.vocab_size, f"tokenizer error token {largest} is not in the model's vocabulary"


def token_rules(given: GenerateParameters, max_new_tokens: int, settings: Settings, info: ModelInfo) -> Rules:
    """Parameters that depend on the vocabulary or on the length of the output."""
    fewest = given.min_tokens or 0
    yield fewest > max_new_tokens, f"`min_tokens` must be <= `max_new_tokens`. Given: {fewest} and {max_new_tokens}"
    bias, limit = given.logit_bias or {}, settings.max_logit_bias
    yield len(bias) > limit, f"`logit_bias` supports up to {limit} tokens. Given: {len(bias)}"
    yield any(not -100.0 <= value <= 100.0 for value in bias.values()), "`logit_bias` must be >= -100 and <= 100"
    for name, ids in (("logit_bias", list(map(int, bias))), ("stop_token_ids", given.stop_token_ids or [])):
        largest = max(ids, default=0)
        yield largest >= info.vocab_size, f"`{name}` names token {largest}; the vocabulary has {info.vocab_size}"


def support_rules(given: GenerateParameters, settings: Settings) -> Rules:
    """Features that this server lacks or that are switched off."""
    yield given.grammar is not None and settings.disable_grammar_support, "grammar is not supported"
    yield given.adapter_id is not None, "adapter_id is not supported"


def _stop_rules(given: GenerateParameters, settings: Settings) -> Rules:
    stop, max_stop, max_length = given.stop or [], settings.max_stop_sequences, settings.max_stop_length
    yield len(stop) > max_stop, f"`stop` supports up to {max_stop} stop sequences. Given: {len(stop)}"
    yield "" in stop, "`stop` sequences cannot be empty"
    longest = max(map(len, stop), default=0)
    yield longest > max_length, f"`stop` sequences must have at most {max_length} characters. Given: {longest}"
    count, max_ids = len(given.stop_token_ids or []), settings.max_stop_token_ids
    yield count > max_ids, f"`stop_token_ids` supports up to {max_ids} tokens. Given: {count}"
