"""`x-request-id`: the client's or a new one, in every answer."""

import pytest

from fakes import FakeEngine, Server, serve
from peregrine_router.http.request_ids import clean_request_id


@pytest.mark.parametrize(
    ("given", "expected"), [("abc-1._:X", "abc-1._:X"), ("a b\u00e9\tc", "abc"), ("x" * 200, "x" * 128)]
)
def test_request_ids(server: Server, given: str, expected: str) -> None:
    """The client's id comes back, as far as it is harmless."""
    headers = [(b"x-request-id", given.encode())]
    assert server.client.get("/health", headers=headers).headers["x-request-id"] == expected


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/health"), ("GET", "/nowhere"), ("POST", "/generate"), ("GET", "/v1/models")]
)
def test_every_answer_has_an_id(server: Server, method: str, path: str) -> None:
    """Errors too; without one from the client it is ours, and new."""
    first, second = (server.client.request(method, path).headers["x-request-id"] for _ in range(2))
    assert len(first) == 32
    assert first != second
    assert clean_request_id("\u00e9") != ""


def test_the_servers_own_faults_have_an_id(engine: FakeEngine) -> None:
    """An answer to an exception that nobody foresaw has it as well, and a stream."""
    engine.submit_error = ZeroDivisionError("secret")
    with serve(engine) as server:
        answer = server.client.post("/generate", json={"inputs": "the"}, headers={"x-request-id": "mine"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")
        engine.submit_error = None
        answer = server.client.post("/generate_stream", json={"inputs": "the"}, headers={"x-request-id": "mine"})
        assert answer.headers["x-request-id"] == "mine"
