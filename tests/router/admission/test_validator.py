"""TGI's checks in TGI's words and order, and the requests made of valid parameters."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fakes import INFO, FakeEngine, make_tokenizer, serve
from peregrine_router.admission import validator as validation
from peregrine_router.admission.generate_parameters import GenerateParameters
from peregrine_router.admission.grammar_schema import GrammarSpec
from peregrine_router.admission.validator import Validator, tgi_prompt_job
from peregrine_router.request import InvalidRequest, Request
from peregrine_router.settings import Settings
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.protocol import Grammar

REGEX: dict[str, Any] = {"type": "regex", "value": "[ab]*"}
STARTS = "starts with: "
BY = "; the operator sets this by"
TOO_MANY = "`inputs` tokens + `max_new_tokens` must be <= 80. Given: "


async def validate(
    inputs: str = "the", is_stream: bool = False, settings: dict[str, Any] | None = None, **given: Any
) -> tuple[Request, ...]:
    validator = Validator(make_tokenizer(), Settings(**(settings or {})), INFO)
    try:
        job = tgi_prompt_job(inputs, GenerateParameters(**given), is_stream=is_stream)
        return (await validator.validate(job)).requests
    finally:
        validator.close()


async def refusal(inputs: str = "the", **given: Any) -> str:
    with pytest.raises(InvalidRequest) as error:
        await validate(inputs, **given)
    return str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
        ({"best_of": 3}, f"`best_of` must be > 0 and <= 2. Given: 3{BY} --max-best-of"),
        ({"best_of": 0}, f"`best_of` must be > 0 and <= 2. Given: 0{BY} --max-best-of"),
        (
            {"best_of": 2, "settings": {"max_best_of": 1}},
            f"`best_of` != 1 is not allowed for this endpoint{BY} --max-best-of",
        ),
        ({"best_of": 2, "is_stream": True}, "`best_of` != 1 is not supported when streaming tokens"),
        (
            {"decoder_input_details": True, "is_stream": True},
            "`decoder_input_details` == true is not supported when streaming tokens",
        ),
        ({"temperature": 0.0}, "`temperature` must be strictly positive"),
        ({"temperature": -1.0}, "`temperature` must be strictly positive"),
        ({"temperature": 1e-50}, "`temperature` must be strictly positive"),
        ({"temperature": 1e39}, "`temperature` is too large"),
        ({"repetition_penalty": 0.0}, "`repetition_penalty` must be strictly positive"),
        ({"frequency_penalty": 2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"frequency_penalty": -2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"top_p": 0.0}, "`top_p` must be > 0.0 and < 1.0"),
        ({"top_p": 1.1}, "`top_p` must be > 0.0 and < 1.0"),
        ({"typical_p": -0.1}, "`typical_p` must be > 0.0 and < 1.0"),
        ({"top_k": 0}, "`top_k` must be strictly positive"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"stop": ["a"] * 5}, f"`stop` supports up to 4 stop sequences. Given: 5{BY} --max-stop-sequences"),
        ({"stop": ["a", ""]}, "`stop` sequences cannot be empty"),
        (
            {"stop": ["a" * 1025]},
            f"`stop` sequences must have at most 1024 characters. Given: 1025{BY} --max-stop-length",
        ),
        ({"best_of": 2, "do_sample": True, "seed": 1}, "`seed` must not be set when `best_of` > 1"),
        ({"top_n_tokens": 6}, f"`top_n_tokens` must be >= 0 and <= 5. Given: 6{BY} --max-top-n-tokens"),
        ({"inputs": ""}, "`inputs` cannot be empty"),
        ({"inputs": "a\0b"}, "`inputs` cannot contain the NUL character"),
        ({"truncate": 0}, f"`truncate` must be strictly positive and less than 60. Given: 0{BY} --max-input-tokens"),
        ({"truncate": 61}, f"`truncate` must be strictly positive and less than 60. Given: 61{BY} --max-input-tokens"),
        (
            {"inputs": "x" * 50, "max_new_tokens": 31},
            f"{TOO_MANY}50 `inputs` tokens and 31 `max_new_tokens`{BY} --max-total-tokens",
        ),
        ({"inputs": "x" * 61}, f"`inputs` must have less than 60 tokens. Given: 61{BY} --max-input-tokens"),
        ({"inputs": "x" * 90}, f"{TOO_MANY}90 `inputs` tokens and 0 `max_new_tokens`{BY} --max-total-tokens"),
        ({"presence_penalty": -2.1}, "`presence_penalty` must be >= -2.0 and <= 2.0"),
        ({"min_p": 1.1}, "`min_p` must be >= 0.0 and <= 1.0"),
        ({"min_tokens": 6, "max_new_tokens": 5}, "`min_tokens` must be <= `max_new_tokens`. Given: 6 and 5"),
        (
            {"stop_token_ids": [1] * 65},
            f"`stop_token_ids` supports up to 64 tokens. Given: 65{BY} --max-stop-token-ids",
        ),
        ({"stop_token_ids": [320]}, "`stop_token_ids` names token 320; the vocabulary has 320"),
        ({"logit_bias": {"320": 1.0}}, "`logit_bias` names token 320; the vocabulary has 320"),
        ({"logit_bias": {"1": 101.0}}, "`logit_bias` must be >= -100 and <= 100"),
        (
            {"logit_bias": {"1": 1.0, "2": 1.0}, "settings": {"max_logit_bias": 1}},
            f"`logit_bias` supports up to 1 tokens. Given: 2{BY} --max-logit-bias",
        ),
        (
            {"grammar": REGEX, "settings": {"disable_grammar_support": True}},
            f"grammar is not supported{BY} --disable-grammar-support",
        ),
        ({"grammar": {"type": "regex"}}, "grammar is not valid: `value` must be the text of a regex grammar"),
        ({"grammar": {"type": "json", "value": "{"}}, STARTS + "grammar is not valid: the schema is no JSON: "),
        ({"grammar": {"type": "json", "value": "[]"}}, "grammar is not valid: a JSON schema must be an object"),
        ({"grammar": {"type": "json_schema"}}, "grammar is not valid: a JSON schema must be an object"),
        (
            {"grammar": REGEX, "settings": {"max_grammar_length": 2}},
            f"grammar is not valid: it has more than 2 bytes{BY} --max-grammar-length",
        ),
        ({"adapter_id": "x"}, "adapter_id is not supported"),
    ],
)
async def test_refusals(given: dict[str, Any], message: str) -> None:
    """Each wrong parameter is refused in TGI's words, and a limit names its option."""
    said = await refusal(**given)
    assert said.startswith(message.removeprefix(STARTS)) if message.startswith(STARTS) else said == message


async def test_order() -> None:
    """The reported fault is the one that TGI checks first."""
    faults: list[dict[str, Any]] = [
        {"best_of": 2},
        {"temperature": 0.0},
        {"repetition_penalty": 0.0},
        {"frequency_penalty": 3.0},
        {"top_p": 0.0},
        {"typical_p": 0.0},
        {"top_k": 0},
        {"max_new_tokens": 0},
        {"stop": [""]},
        {"top_n_tokens": 9},
        {"inputs": ""},
        {"truncate": 0},
        {"grammar": {"type": "regex"}},
    ]
    together: dict[str, Any] = {}
    for fault in reversed(faults):
        together = fault | together
        if fault != {"best_of": 2}:  # The others count as sampling.
            assert await refusal(**together) == await refusal(**fault), fault


async def test_bounds_are_inclusive() -> None:
    """Values on the bounds pass: prompts of max_input_tokens, totals of max_total_tokens, top_p of 1 as off."""
    (request,) = await validate("x" * 60, max_new_tokens=20, top_p=1.0, typical_p=1.0, truncate=60)
    assert (len(request.prompt_ids), request.max_new_tokens) == (60, 20)
    assert not request.sampling.do_sample


async def test_defaults() -> None:
    """By default decoding is greedy, every parameter is off, and the output may fill max_total_tokens."""
    (request,) = await validate("x" * 10)
    assert request.max_new_tokens == 70
    assert request.sampling == type(request.sampling)()
    assert request.stop == ()
    assert not request.ignore_eos


async def test_ends_where_they_matter() -> None:
    """The shard receives the end tokens only if it must mask them (`min_tokens`) or allow them (a grammar)."""
    (plain,) = await validate(stop_token_ids=[7, 5])
    assert plain.stop_token_ids == {5, 7}
    assert plain.sampling.end_token_ids == ()
    (least,) = await validate(stop_token_ids=[7, 5], min_tokens=3)
    assert (least.sampling.min_tokens, least.sampling.end_token_ids) == (3, (0, 5, 7))
    (ignoring,) = await validate(stop_token_ids=[7], min_tokens=3, ignore_eos=True)
    assert ignoring.sampling.end_token_ids == (7,)
    (constrained,) = await validate(grammar=REGEX)
    assert constrained.sampling.end_token_ids == (0,)
    assert constrained.sampling.grammar == Grammar("regex", "[ab]*")


async def test_parameters_reach_the_shard() -> None:
    """Every sampling parameter arrives at the shard unchanged."""
    (request,) = await validate(
        min_p=0.1, presence_penalty=0.5, frequency_penalty=-0.5, logit_bias={"3": -1.5}, watermark=True
    )
    sampling = request.sampling
    assert (sampling.min_p, sampling.presence_penalty, sampling.frequency_penalty) == (0.1, 0.5, -0.5)
    assert (sampling.logit_bias, sampling.watermark, sampling.do_sample) == (((3, -1.5),), True, True)


def refuse_grammar(grammar: Grammar) -> None:
    raise InvalidRequest("grammar is not valid: line 1")


async def check_grammar(check: Callable[[Grammar], None]) -> None:
    validator = Validator(make_tokenizer(), Settings(), INFO, check)
    try:
        await validator.validate(tgi_prompt_job("the", GenerateParameters(grammar=GrammarSpec(**REGEX))))
    finally:
        validator.close()


async def test_grammar_that_does_not_compile() -> None:
    """The compiler's message reaches the client."""
    with pytest.raises(InvalidRequest, match="line 1"):
        await check_grammar(refuse_grammar)


async def test_grammar_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling a grammar has a time limit, and does not block the event loop."""
    monkeypatch.setattr(validation, "GRAMMAR_SECONDS", 0.05)
    done = threading.Event()

    def wait(grammar: Grammar) -> None:
        done.wait(5)

    with pytest.raises(InvalidRequest, match="compiling it takes over"):
        await check_grammar(wait)
    done.set()


async def test_special_tokens_in_prompts() -> None:
    """Special tokens in a prompt are text, unless the operator lets clients render templates themselves."""
    (plain,) = await validate("a<|endoftext|>")
    (special,) = await validate("a<|endoftext|>", settings={"special_tokens_in_prompts": True})
    assert 0 not in plain.prompt_ids
    assert special.prompt_ids[-1] == 0


async def test_truncate_keeps_the_end() -> None:
    """`truncate` drops the prompt's first tokens."""
    (whole,) = await validate("the fox jumps")
    (cut,) = await validate("the fox jumps", truncate=3)
    assert cut.prompt_ids == whole.prompt_ids[-3:]


@pytest.mark.parametrize(
    "given", [{"do_sample": True}, {"temperature": 0.5}, {"top_k": 5}, {"top_p": 0.5}, {"typical_p": 0.5}]
)
async def test_sampling_turns_on(given: dict[str, Any]) -> None:
    """Any parameter that shapes sampling turns it on, with a random seed unless one is given."""
    (first,) = await validate(**given)
    (second,) = await validate(**given)
    (seeded,) = await validate(**given, seed=7)
    assert first.sampling.do_sample
    assert first.sampling.seed != second.sampling.seed
    assert seeded.sampling.seed == 7


@pytest.mark.parametrize("given", [{"temperature": 1.0}, {"repetition_penalty": 1.2}, {"seed": 7}])
async def test_sampling_stays_off(given: dict[str, Any]) -> None:
    """A temperature of 1, penalties and seeds leave decoding greedy."""
    (request,) = await validate(**given)
    assert not request.sampling.do_sample


async def test_omitted_parameters_sample(tokenizer: Tokenizer) -> None:
    """Without `parameters` tokens are sampled, as in TGI."""
    validator = Validator(tokenizer, Settings(), INFO)
    (request,) = (await validator.validate(tgi_prompt_job("the", None))).requests
    validator.close()
    assert request.sampling.do_sample


async def test_logprobs_where_they_are_seen() -> None:
    """Log-probabilities are computed only if the answer shows or compares them."""
    assert not (await validate())[0].sampling.logprobs
    assert (await validate(details=True))[0].sampling.logprobs
    assert (await validate(is_stream=True))[0].sampling.logprobs
    assert (await validate(best_of=2, do_sample=True))[0].sampling.logprobs


async def test_best_of_makes_as_many_requests() -> None:
    """`best_of` makes requests that differ in id and seed alone."""
    first, second = await validate(best_of=2, temperature=1.0)
    assert first.prompt_ids == second.prompt_ids
    assert first.id != second.id
    assert first.sampling.seed != second.sampling.seed
    assert first.sampling.do_sample


async def test_tokens_the_model_does_not_know(tokenizer: Tokenizer) -> None:
    """A token beyond the model's vocabulary is refused here: in a shard it would be out of bounds."""
    validator = Validator(tokenizer, Settings(), replace(INFO, vocab_size=50))
    with pytest.raises(InvalidRequest, match="not in the model's vocabulary"):
        await validator.validate(tgi_prompt_job("the quick brown fox", None))
    validator.close()


def test_refusal_over_http(engine: FakeEngine) -> None:
    """Over HTTP a refusal is a 422 with TGI's prefix, and the server serves on."""
    with serve(engine) as server:
        answer = server.generate("a\0b")
        assert answer.status_code == 422
        assert answer.json() == {
            "error": "Input validation error: `inputs` cannot contain the NUL character",
            "error_type": "validation",
        }
        assert server.generate("a").status_code == 200
        assert server.generate(ignore_eos=True, max_new_tokens=9).headers["x-generated-tokens"] == "9"
    assert engine.requests[-1].ignore_eos
