"""Values of attributes that clients could choose badly."""

import json

from peregrine_router.observability.observer import RequestRecord
from peregrine_router.observability.trace_attributes import (
    MAX_CONTENT_LENGTH,
    MAX_HEADER_LENGTH,
    content_attributes,
    http_attributes,
    parameter_attributes,
)
from peregrine_router.request import Finished, FinishReason, Request, SamplingParams

SCOPE = {
    "method": "POST",
    "path": "/generate",
    "query_string": b"key=secret",
    "scheme": "http",
    "http_version": "1.1",
    "server": ("127.0.0.1", 3000),
    "client": None,
    "headers": [(b"user-agent", b"x" * 10_000), (b"authorization", b"secret")],
}


def record(**sampling: object) -> RequestRecord:
    """A validated request of one token."""
    request = Request("a", (1,), SamplingParams(**sampling), 5)  # type: ignore[arg-type]
    return RequestRecord("a", 0.0, requests=(request,), prompts=("p",), num_prompt_tokens=1)


def test_the_head_is_recorded_without_secrets() -> None:
    """Method, path and address; a long agent is cut, query and key are left out."""
    found = http_attributes(SCOPE)
    assert found["url.path"] == "/generate"
    assert (found["server.address"], found["server.port"]) == ("127.0.0.1", 3000)
    assert "client.address" not in found
    assert len(str(found["user_agent.original"])) == MAX_HEADER_LENGTH
    assert "secret" not in str(found)


def test_greedy_is_temperature_zero() -> None:
    """The temperature of a request that does not sample has no effect, and its seed none."""
    found = parameter_attributes(record(temperature=0.7, seed=3))
    assert found["gen_ai.request.temperature"] == 0.0
    assert "gen_ai.request.seed" not in found


def test_a_seed_that_otlp_cannot_hold_is_left_out() -> None:
    """Seeds have 64 bits without a sign; such a span would take its whole batch with it."""
    assert "gen_ai.request.seed" not in parameter_attributes(record(do_sample=True, seed=2**64 - 1))
    assert parameter_attributes(record(do_sample=True, seed=2**63 - 1))["gen_ai.request.seed"] == 2**63 - 1


def test_content_is_cut() -> None:
    """However many and long the prompts, a span has MAX_CONTENT_LENGTH characters of them; any text can be encoded."""
    request = record()
    request.prompts = ("\ud800", *["x" * 10_000] * 1000)
    request.finished = [Finished(FinishReason.LENGTH, "y" * 1_000_000, 1)]
    found = content_attributes(request)
    messages = json.loads(str(found["gen_ai.input.messages"]))
    assert sum(len(message["parts"][0]["content"]) for message in messages) == MAX_CONTENT_LENGTH
    (answer,) = json.loads(str(found["gen_ai.output.messages"]))
    assert answer == {"role": "assistant", "parts": [{"type": "text", "content": "y" * MAX_CONTENT_LENGTH}]}
    for value in found.values():
        str(value).encode()
