"""Translation of OpenAI's parameters into TGI's."""

from typing import Any

import pytest

from fakes import Server
from peregrine_router.admission.generate_parameters import CommonParameters, GenerateParameters
from peregrine_router.api.openai.parameters import generate_parameters
from peregrine_router.api.openai.schemas import CompletionRequest
from peregrine_router.request import InvalidRequest


def translate(**body: Any) -> GenerateParameters:
    request = CompletionRequest.model_validate({"prompt": "the", **body})
    return generate_parameters(request, max_tokens=request.max_tokens, top_n=request.logprobs)


def test_greedy(server: Server) -> None:
    """A temperature of 0 is greedy, whatever else is set; left out, tokens are sampled."""
    bodies: list[dict[str, Any]] = [{"temperature": 0, "top_p": 0.5}, {"seed": -1}]
    for body in bodies:
        assert server.client.post("/v1/completions", json={"prompt": "the", **body}).status_code == 200
    greedy, seeded = (request.sampling for request in server.engine.requests)
    assert not greedy.do_sample
    assert seeded.do_sample
    assert seeded.seed == 2**64 - 1


def test_common_parameters_keep_their_names_and_values() -> None:
    """Every parameter that both APIs have is passed on unchanged."""
    given = {name: (field.examples or [None])[0] for name, field in CommonParameters.model_fields.items()}
    assert None not in given.values()
    assert translate(**given).model_dump(include=set(given)) == given


def test_zero_is_off() -> None:
    """A temperature and a top_k of 0, which TGI refuses, are left out."""
    translated = translate(temperature=0.0, top_k=0).model_dump()
    assert (translated["temperature"], translated["top_k"], translated["do_sample"]) == (None, None, False)


def test_one_stop_sequence_is_a_list_of_one() -> None:
    """OpenAI's `stop` may be a single text."""
    assert translate(stop="a").stop == ["a"]
    assert translate(stop=["a", "b"]).stop == ["a", "b"]
    assert translate().stop == []


def test_stream_options_need_a_stream() -> None:
    """Options of a stream without `stream` are refused."""
    with pytest.raises(InvalidRequest, match="`stream_options` is only allowed with `stream`"):
        translate(stream_options={"include_usage": True})
