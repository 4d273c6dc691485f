"""Headers with the sizes and times of an answer."""

from typing import Any

import pytest

from fakes import FakeEngine, Server, serve
from peregrine_router.http.response_headers import HEADERS, WARNING, dropped_warning

UNIQUE = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}


def test_a_whole_answer_has_all_headers(engine: FakeEngine) -> None:
    """Every header that pages of other origins may read; the phases add up to the total, in whole milliseconds."""
    engine.delay, engine.cached_tokens = 0.02, 2
    with serve(engine) as server:
        headers = server.generate("the fox", max_new_tokens=3).headers
    assert {*HEADERS} - {WARNING} <= set(headers)
    assert headers["x-compute-characters"] == str(len("the fox"))
    assert (headers["x-generated-tokens"], headers["x-cached-tokens"]) == ("3", "2")
    total, *phases = (int(headers[f"x-{name}-time"]) for name in ("total", "validation", "queue", "inference"))
    assert total - 3 <= sum(phases) <= total
    assert int(headers["x-time-per-token"]) == pytest.approx(int(headers["x-inference-time"]) / 3, abs=1)
    assert float(headers["x-compute-time"]) * 1000 == pytest.approx(total, abs=1)
    assert total >= 40


def test_the_compute_type_can_be_set(engine: FakeEngine) -> None:
    """A stream says it too; it has no times, because its headers come first."""
    with serve(engine, compute_type="a+b") as server:
        headers = server.generate(path="/generate_stream", max_new_tokens=1).headers
    assert headers["x-compute-type"] == "a+b"
    assert {name for name in HEADERS if name in headers} == {"x-compute-type", "x-compute-characters"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"inputs": "a", "parameters": {"grammar": {"type": "json", "value": UNIQUE}}}),
        ("/generate_stream", {"inputs": "a", "parameters": {"grammar": {"type": "json", "value": UNIQUE}}}),
        (
            "/v1/completions",
            {"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": UNIQUE}}},
        ),
    ],
)
def test_what_a_grammar_does_not_hold_is_a_warning(server: Server, path: str, body: dict[str, Any]) -> None:
    """On TGI's and OpenAI's routes, and of a stream."""
    answer = server.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers[WARNING] == "not enforced: uniqueItems (at #)"


def test_a_warning_is_a_valid_header_of_bounded_length() -> None:
    """Names of properties may hold any character, and be long."""
    warning = dropped_warning([f"not (at #/properties/\r\né{'x' * 500})"] * 1000)
    assert warning.isascii()
    assert warning.isprintable()
    assert len(warning) < 2000
    assert warning.endswith("and 992 more")
