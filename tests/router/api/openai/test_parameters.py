"""Translation of OpenAI's parameters into TGI's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from chats import TEMPLATE
from fakes import EOS, INFO, FakeEngine, Server, serve
from peregrine_router.admission.generate_parameters import CommonParameters, GenerateParameters
from peregrine_router.api.openai.parameters import generate_parameters
from peregrine_router.api.openai.schemas import CompletionRequest
from peregrine_router.request import InvalidRequest
from peregrine_router.text.chat_template import Chat

DEFAULTS = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1}


def translate(defaults: Mapping[str, float] | None = None, **body: Any) -> GenerateParameters:
    request = CompletionRequest.model_validate({"prompt": "the", **body})
    top_n, max_tokens = request.logprobs, request.max_tokens
    return generate_parameters(request, max_tokens=max_tokens, top_n=top_n, defaults=defaults or {})


def test_greedy(server: Server) -> None:
    """A temperature of 0 is greedy, whatever else is set; left out, tokens are sampled."""
    bodies: list[dict[str, Any]] = [{"temperature": 0, "top_p": 0.5}, {"seed": -1}]
    for body in bodies:
        assert server.client.post("/v1/completions", json={"prompt": "the", **body}).status_code == 200
    greedy, seeded = (request.sampling for request in server.engine.requests)
    assert not greedy.do_sample
    assert seeded.do_sample
    assert seeded.seed == 2**64 - 1


def test_an_empty_nucleus_is_greedy() -> None:
    """A top_p of 0, the least that OpenAI takes, leaves the most probable token."""
    translated = translate(top_p=0).model_dump()
    assert (translated["top_p"], translated["do_sample"]) == (None, False)


def test_common_parameters_keep_their_names_and_values() -> None:
    """Every parameter that both APIs have is passed on unchanged."""
    given = {name: (field.examples or [None])[0] for name, field in CommonParameters.model_fields.items()}
    assert None not in given.values()
    assert translate(**given).model_dump(include=set(given)) == given


@pytest.mark.parametrize("top_k", [0, -1])
def test_values_that_mean_off(top_k: int) -> None:
    """A temperature of 0, and a top_k of 0 or vLLM's -1, which TGI refuses, are left out."""
    translated = translate(temperature=0.0, top_k=top_k).model_dump()
    assert (translated["temperature"], translated["top_k"], translated["do_sample"]) == (None, None, False)


def test_defaults_of_the_model_fill_what_is_left_out() -> None:
    """Null means left out. What the client names counts, also where it says "off"."""
    assert translate(DEFAULTS, top_p=None).model_dump(include=set(DEFAULTS)) == DEFAULTS
    own = {"temperature": 0.2, "top_p": 0.5, "top_k": 7, "min_p": 0.0, "repetition_penalty": 1.0}
    assert translate(DEFAULTS, **own).model_dump(include=set(DEFAULTS)) == own
    off = translate(DEFAULTS, temperature=0, top_k=0).model_dump()
    assert (off["temperature"], off["top_k"], off["do_sample"]) == (None, None, False)


def test_a_model_may_be_greedy_by_default() -> None:
    """A temperature of 0 in its file decodes greedily, until a client names another."""
    assert not translate({"temperature": 0.0}).do_sample
    assert translate({"temperature": 0.0}, temperature=1.0).do_sample


def test_defaults_are_of_the_routes_of_openai(engine: FakeEngine) -> None:
    """Completions and chat have them, TGI's routes do not."""
    info = replace(
        INFO, max_total_tokens=200, max_input_tokens=100, sampling_defaults={**DEFAULTS, "max_new_tokens": 2}
    )
    with serve(engine, info, Chat(engine.tokenizer, TEMPLATE, {"eos_token": EOS})) as server:
        for path, body in (
            ("/v1/completions", {"prompt": "the"}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
            ("/generate", {"inputs": "the", "parameters": {"do_sample": True}}),
        ):
            assert server.client.post(path, json=body).status_code == 200
    *of_openai, of_tgi = engine.requests
    for request in of_openai:
        assert {name: getattr(request.sampling, name) for name in DEFAULTS} == DEFAULTS
        assert request.max_new_tokens == 2
    assert (of_tgi.sampling.temperature, of_tgi.sampling.top_k, of_tgi.sampling.repetition_penalty) == (1.0, 0, 1.0)
    assert of_tgi.max_new_tokens > 2


def test_a_default_length_is_no_more_than_fits(engine: FakeEngine) -> None:
    """A client's own that does not fit is refused, the model's is cut."""
    with serve(engine, replace(INFO, sampling_defaults={"max_new_tokens": 5000})) as server:
        assert server.client.post("/v1/completions", json={"prompt": "the"}).status_code == 200
        assert server.client.post("/v1/completions", json={"prompt": "the", "max_tokens": 5000}).status_code == 400
    (request,) = engine.requests
    assert request.max_new_tokens == INFO.max_total_tokens - len(request.prompt_ids)


def test_a_completion_has_16_tokens_where_nobody_says(engine: FakeEngine) -> None:
    """OpenAI's default; a chat and TGI's /generate go on to the end of the context."""
    with serve(engine, chat=Chat(engine.tokenizer, TEMPLATE, {"eos_token": EOS})) as server:
        server.client.post("/v1/completions", json={"prompt": "the"})
        server.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "a"}]})
        server.client.post("/generate", json={"inputs": "the"})
    completion, *others = engine.requests
    assert completion.max_new_tokens == 16
    for request in others:
        assert request.max_new_tokens == INFO.max_total_tokens - len(request.prompt_ids)


def test_one_stop_sequence_is_a_list_of_one() -> None:
    """OpenAI's `stop` may be a single text."""
    assert translate(stop="a").stop == ["a"]
    assert translate(stop=["a", "b"]).stop == ["a", "b"]
    assert translate().stop == []


def test_stream_options_need_a_stream() -> None:
    """Options of a stream without `stream` are refused."""
    with pytest.raises(InvalidRequest, match="`stream_options` is only allowed with `stream`"):
        translate(stream_options={"include_usage": True})
