"""Rules that a request must satisfy: TGI's checks, in its order and wording, with a few more. Pure functions."""

import re
from collections.abc import Sequence

from peregrine_router.admission.api_limits import ApiLimits, set_by
from peregrine_router.admission.generate_parameters import MAX_TIMEOUT, GenerateParameters
from peregrine_router.admission.parameters import has_warper, implies_sampling, range_rules
from peregrine_router.admission.ranges import Rules
from peregrine_router.interfaces import ModelInfo
from peregrine_router.request import InvalidRequest
from peregrine_router.settings import Settings

REQUEST_TIMEOUT = "x-request-timeout"
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)


def check(rules: Rules, error: type[InvalidRequest] = InvalidRequest) -> None:
    """Raises `error` for the first rule that is broken."""
    for is_broken, message in rules:
        if is_broken:
            raise error(message)


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


def count_rules(count: int, limits: ApiLimits, name: str = "best_of") -> Rules:
    """Number of sequences of one prompt. `name` is the client's name for it."""
    largest, flag = limits.max_best_of, set_by("max_best_of")
    yield largest == 1 and count != 1, f"`{name}` != 1 is not allowed for this endpoint{flag}"
    yield not 1 <= count <= largest, f"`{name}` must be > 0 and <= {largest}. Given: {count}{flag}"


def parameter_rules(given: GenerateParameters, settings: Settings, limits: ApiLimits) -> Rules:
    """Parameters that need no prompt to be checked."""
    best_of = given.best_of or 1
    needs_sampling = best_of > 1 and not given.do_sample and not has_warper(given)
    yield needs_sampling, "you must use sampling when `best_of` is > 1"
    yield from range_rules(given)
    yield given.max_new_tokens == 0, "`max_new_tokens` must be strictly positive"
    yield from _stop_rules(given, settings)
    yield best_of > 1 and given.seed is not None, "`seed` must not be set when `best_of` > 1"
    yield from top_n_rules(given.top_n_tokens or 0, limits)


def top_n_rules(count: int, limits: ApiLimits, name: str = "top_n_tokens") -> Rules:
    """Number of likeliest tokens. `name` is the client's name for it."""
    largest, flag = limits.max_top_n_tokens, set_by("max_top_n_tokens")
    yield count > largest, f"`{name}` must be >= 0 and <= {largest}. Given: {count}{flag}"


def text_rules(inputs: str, name: str) -> Rules:
    """Prompt as text."""
    yield not inputs, f"`{name}` cannot be empty"
    yield "\0" in inputs, f"`{name}` cannot contain the NUL character"


def truncate_rules(truncate: int | None, info: ModelInfo) -> Rules:
    """Number of prompt tokens to keep."""
    limit = info.max_input_tokens
    flag = set_by("max_input_tokens")
    message = f"`truncate` must be strictly positive and less than {limit}. Given: {truncate}{flag}"
    yield truncate is not None and not 0 < truncate <= limit, message


def length_rules(length: int, max_new_tokens: int, info: ModelInfo, name: str, *, is_bound: bool = False) -> Rules:
    """Lengths of prompt and output in tokens, against the server's limits, in TGI's words. `is_bound`: the prompt has
    that many tokens or more."""
    shown = _at_least(length) if is_bound else f"{length}"
    yield (
        length + max_new_tokens > info.max_total_tokens,
        f"`{name}` tokens + `max_new_tokens` must be <= {info.max_total_tokens}. "
        f"Given: {shown} `{name}` tokens and {max_new_tokens} `max_new_tokens`{set_by('max_total_tokens')}",
    )
    too_long = f"`{name}` must have less than {info.max_input_tokens} tokens. Given: {shown}"
    yield length > info.max_input_tokens, too_long + set_by("max_input_tokens")


def context_rules(length: int, max_new_tokens: int, info: ModelInfo, name: str, *, is_bound: bool = False) -> Rules:
    """`length_rules` in OpenAI's words, which its clients look for."""
    shown = _at_least(length) if is_bound else f"{length}"
    longest, num_new = info.max_total_tokens, max(max_new_tokens, 1)
    context = f"This model's maximum context length is {longest} tokens"
    yield (
        length + num_new > longest,
        f"{context}. However, you requested {length + num_new} tokens ({shown} in the `{name}`, {num_new} in the "
        f"completion). Please reduce the length of the `{name}` or completion{set_by('max_total_tokens')}",
    )
    yield (
        length > info.max_input_tokens,
        f"{context}, {info.max_input_tokens} of them for the prompt. However, your `{name}` resulted in {shown} "
        f"tokens. Please reduce the length of the `{name}`{set_by('max_input_tokens')}",
    )


def _at_least(length: int) -> str:
    return f"at least {length}"


def prompt_rules(prompt_ids: Sequence[int], info: ModelInfo, name: str) -> Rules:
    """Prompt in tokens."""
    yield not prompt_ids, f"`{name}` cannot be empty"
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
    too_many = f"`logit_bias` supports up to {limit} tokens. Given: {len(bias)}{set_by('max_logit_bias')}"
    yield len(bias) > limit, too_many
    yield any(not -100.0 <= value <= 100.0 for value in bias.values()), "`logit_bias` must be >= -100 and <= 100"
    for name, ids in (("logit_bias", list(map(int, bias))), ("stop_token_ids", given.stop_token_ids or [])):
        largest = max(ids, default=0)
        yield largest >= info.vocab_size, f"`{name}` names token {largest}; the vocabulary has {info.vocab_size}"


def support_rules(given: GenerateParameters, settings: Settings) -> Rules:
    """Features that this server lacks or that are switched off."""
    is_off = f"grammar is not supported{set_by('disable_grammar_support')}"
    yield given.grammar is not None and settings.disable_grammar_support, is_off
    yield given.adapter_id is not None, "adapter_id is not supported"


def _stop_rules(given: GenerateParameters, settings: Settings) -> Rules:
    stop, max_stop, max_length = given.stop or [], settings.max_stop_sequences, settings.max_stop_length
    too_many = f"`stop` supports up to {max_stop} stop sequences. Given: {len(stop)}"
    yield len(stop) > max_stop, too_many + set_by("max_stop_sequences")
    yield "" in stop, "`stop` sequences cannot be empty"
    longest = max(map(len, stop), default=0)
    too_long = f"`stop` sequences must have at most {max_length} characters. Given: {longest}"
    yield longest > max_length, too_long + set_by("max_stop_length")
    count, max_ids = len(given.stop_token_ids or []), settings.max_stop_token_ids
    too_many = f"`stop_token_ids` supports up to {max_ids} tokens. Given: {count}"
    yield count > max_ids, too_many + set_by("max_stop_token_ids")
