"""From what a client sent to `Request`s. The checks, their order and their wording are TGI's, with a few more."""

import asyncio
import ctypes
import secrets
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from peregrine_router.api.schemas import GenerateParameters
from peregrine_router.generation import ModelInfo
from peregrine_router.request import InvalidRequest, Request, SamplingParams
from peregrine_router.settings import Settings
from peregrine_router.tokenizer import Tokenizer

MAX_STOP_CHARACTERS = 1024
"""Of one stop sequence: each token's text is searched for it together with as many characters before."""
OMITTED = GenerateParameters(do_sample=True)
"""TGI samples when `parameters` is left out altogether."""

Rules = Iterator[tuple[bool, str]]


class Validator:
    """Owns the threads that tokenize."""

    def __init__(self, tokenizer: Tokenizer, settings: Settings, info: ModelInfo) -> None:
        self._tokenizer = tokenizer
        self._settings = settings
        self._info = info
        self._threads = ThreadPoolExecutor(settings.validation_workers, thread_name_prefix="validation")

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def validate(
        self, inputs: str, parameters: GenerateParameters | None, *, is_stream: bool = False
    ) -> tuple[Request, ...]:
        """`best_of` requests for the same prompt, each with a seed of its own. Raises InvalidRequest."""
        given = parameters or OMITTED
        if is_stream:
            _check(_stream_rules(given))
        _check(_parameter_rules(given, self._settings))
        _check(_text_rules(inputs, given, self._info))
        prompt_ids = await self._tokenize(inputs, given.truncate)
        room = max(self._info.max_total_tokens - len(prompt_ids), 0)
        max_new_tokens = room if given.max_new_tokens is None else given.max_new_tokens
        _check(_length_rules(prompt_ids, max_new_tokens, self._info))
        _check(_unsupported(given))
        return _requests(given, prompt_ids, max_new_tokens, has_logprobs=is_stream or _has_details(given))

    async def _tokenize(self, inputs: str, truncate: int | None) -> tuple[int, ...]:
        loop = asyncio.get_running_loop()
        try:
            ids = await loop.run_in_executor(self._threads, self._tokenizer.encode, inputs)
        except Exception as error:  # The library raises bare Exception.
            raise InvalidRequest(f"tokenizer error {error}") from None
        return tuple(ids if truncate is None else ids[-truncate:])


def is_sampling(given: GenerateParameters) -> bool:
    """Whether tokens are drawn. A parameter that only means something when sampling turns it on, unless it is off."""
    shaped = (given.temperature, given.top_p, given.typical_p)
    return bool(given.do_sample or given.top_k or any(value not in (None, 1.0) for value in shaped))


def _has_details(given: GenerateParameters) -> bool:
    return bool(given.details or given.decoder_input_details)


def _check(rules: Rules) -> None:
    for is_broken, message in rules:
        if is_broken:
            raise InvalidRequest(message)


def _stream_rules(given: GenerateParameters) -> Rules:
    yield given.best_of not in (None, 1), "`best_of` != 1 is not supported when streaming tokens"
    yield bool(given.decoder_input_details), "`decoder_input_details` == true is not supported when streaming tokens"


def _parameter_rules(given: GenerateParameters, settings: Settings) -> Rules:
    best_of = 1 if given.best_of is None else given.best_of
    max_best_of = settings.max_best_of
    yield max_best_of == 1 and best_of != 1, "`best_of` != 1 is not allowed for this endpoint"
    yield not 1 <= best_of <= max_best_of, f"`best_of` must be > 0 and <= {max_best_of}. Given: {best_of}"
    warpers = (given.temperature, given.top_k, given.top_p, given.typical_p)
    has_warper = any(value is not None for value in warpers)
    yield best_of > 1 and not given.do_sample and not has_warper, "you must use sampling when `best_of` is > 1"
    for name in ("temperature", "repetition_penalty"):
        yield from _positive_rules(name, getattr(given, name))
    penalty = given.frequency_penalty or 0.0
    yield not -2.0 <= penalty <= 2.0, "`frequency_penalty` must be >= -2.0 and <= 2.0"
    for name in ("top_p", "typical_p"):
        value = getattr(given, name)
        # TGI refuses 1.0, which every client takes for "off".
        yield value is not None and not 0.0 < _float32(value) <= 1.0, f"`{name}` must be > 0.0 and < 1.0"
    yield given.top_k is not None and given.top_k <= 0, "`top_k` must be strictly positive"
    yield given.max_new_tokens == 0, "`max_new_tokens` must be strictly positive"
    yield from _stop_rules(given.stop or [], settings.max_stop_sequences)
    yield best_of > 1 and given.seed is not None, "`seed` must not be set when `best_of` > 1"
    top_n, max_top_n = given.top_n_tokens or 0, settings.max_top_n_tokens
    yield top_n > max_top_n, f"`top_n_tokens` must be >= 0 and <= {max_top_n}. Given: {top_n}"


def _positive_rules(name: str, value: float | None) -> Rules:
    if value is not None:
        yield _float32(value) <= 0.0, f"`{name}` must be strictly positive"
        yield _float32(value) == float("inf"), f"`{name}` is too large"


def _stop_rules(stop: list[str], max_stop: int) -> Rules:
    yield len(stop) > max_stop, f"`stop` supports up to {max_stop} stop sequences. Given: {len(stop)}"
    yield "" in stop, "`stop` sequences cannot be empty"
    longest = max(map(len, stop), default=0)
    limit = MAX_STOP_CHARACTERS
    yield longest > limit, f"`stop` sequences must have at most {limit} characters. Given: {longest}"


def _text_rules(inputs: str, given: GenerateParameters, info: ModelInfo) -> Rules:
    yield not inputs, "`inputs` cannot be empty"
    yield "\0" in inputs, "`inputs` cannot contain the NUL character"
    limit, truncate = info.max_input_tokens, given.truncate
    message = f"`truncate` must be strictly positive and less than {limit}. Given: {truncate}"
    yield truncate is not None and not 0 < truncate <= limit, message


def _length_rules(prompt_ids: tuple[int, ...], max_new_tokens: int, info: ModelInfo) -> Rules:
    length = len(prompt_ids)
    yield length == 0, "`inputs` cannot be empty"
    yield (
        length + max_new_tokens > info.max_total_tokens,
        f"`inputs` tokens + `max_new_tokens` must be <= {info.max_total_tokens}. "
        f"Given: {length} `inputs` tokens and {max_new_tokens} `max_new_tokens`",
    )
    too_long = f"`inputs` must have less than {info.max_input_tokens} tokens. Given: {length}"
    yield length > info.max_input_tokens, too_long
    # Tokens added to a tokenizer after training: the model has no embedding for them.
    largest = max(prompt_ids)
    yield largest >= info.vocab_size, f"tokenizer error token {largest} is not in the model's vocabulary"


def _unsupported(given: GenerateParameters) -> Rules:
    yield given.grammar is not None, "grammar is not supported"
    yield bool(given.watermark), "watermark is not supported"
    yield given.adapter_id is not None, "adapter_id is not supported"


def _requests(
    given: GenerateParameters, prompt_ids: tuple[int, ...], max_new_tokens: int, has_logprobs: bool
) -> tuple[Request, ...]:
    best_of, id = given.best_of or 1, uuid.uuid4().hex
    return tuple(
        Request(
            id=id if number == 0 else f"{id}-{number}",
            prompt_ids=prompt_ids,
            sampling=_sampling(given, has_logprobs=has_logprobs or best_of > 1, must_sample=best_of > 1),
            max_new_tokens=max_new_tokens,
            stop=tuple(given.stop or ()),
            ignore_eos=given.ignore_eos,
        )
        for number in range(best_of)
    )


def _sampling(given: GenerateParameters, has_logprobs: bool, must_sample: bool) -> SamplingParams:
    do_sample = must_sample or is_sampling(given)
    seed = secrets.randbits(64) if given.seed is None else given.seed
    return SamplingParams(
        do_sample=do_sample,
        temperature=1.0 if given.temperature is None else given.temperature,
        top_k=given.top_k or 0,
        top_p=1.0 if given.top_p is None else given.top_p,
        typical_p=1.0 if given.typical_p is None else given.typical_p,
        repetition_penalty=1.0 if given.repetition_penalty is None else given.repetition_penalty,
        frequency_penalty=given.frequency_penalty or 0.0,
        seed=seed if do_sample else 0,
        logprobs=has_logprobs,
        top_n_tokens=given.top_n_tokens or 0,
        prompt_logprobs=bool(given.decoder_input_details),
    )


def _float32(value: float) -> float:
    """As the device will see it: 1e-50 is zero there, 1e39 infinite."""
    return ctypes.c_float(value).value
