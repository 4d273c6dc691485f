"""POST /cancel: which requests it finds, and what their clients are told."""

import threading
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes import FakeEngine, Server, serve, wait_until

pytestmark = pytest.mark.slow

KEY = {"authorization": "Bearer second"}


class Posted(threading.Thread):
    """A request that is answered while the test goes on."""

    def __init__(self, server: Server, body: dict[str, Any], headers: dict[str, str]) -> None:
        super().__init__()
        self._post = partial(httpx.post, f"{server.url}/generate", json=body, headers=headers)
        self.start()

    def run(self) -> None:
        self._answer = self._post()

    def answer(self) -> httpx.Response:
        self.join()
        return self._answer


def test_cancel(engine: FakeEngine) -> None:
    """POST /cancel/{id} ends all sequences of a request; its client is told, and the places are free."""
    engine.delay = 0.3
    body = {"inputs": "the", "parameters": {"best_of": 2, "do_sample": True}}
    with serve(engine, max_concurrent_requests=2) as server:
        posted = Posted(server, body, {"x-request-id": "mine"})
        wait_until(lambda: len(engine.running) == 2)
        done = server.client.post("/cancel/mine")
        assert (done.status_code, done.json()) == (200, {"id": "mine", "cancelled": True})
        answer = posted.answer()
        assert (answer.status_code, answer.json()["error_type"]) == (499, "cancelled")
        assert not engine.running
        assert server.client.post("/cancel/mine").status_code == 404
        engine.delay = 0.0
        assert server.generate(best_of=2, do_sample=True).status_code == 200
        assert server.metrics()['tgi_request_failure{err="cancelled"}'] == 1


def test_cancelled_stream(engine: FakeEngine) -> None:
    """A stream that is cancelled ends with an event that says so."""
    engine.delay = 0.3
    with serve(engine) as server:
        headers = {"x-request-id": "mine"}
        with server.client.stream("POST", "/generate_stream", json={"inputs": "the"}, headers=headers) as answer:
            lines = answer.iter_lines()
            next(lines)
            assert httpx.post(f"{server.url}/cancel/mine").status_code == 200
            assert '"error_type":"cancelled"' in "".join(lines)


def test_nobody_cancels_anothers_request(engine: FakeEngine) -> None:
    """An id is found only with the key that made the request."""
    engine.delay = 0.3
    with serve(engine, api_key="first,second") as server:
        headers = {"x-request-id": "mine", "authorization": "Bearer first"}
        posted = Posted(server, {"inputs": "the"}, headers)
        wait_until(lambda: engine.running)
        assert server.client.post("/cancel/mine", headers=KEY).status_code == 404
        assert server.client.post("/cancel/mine", headers=headers).status_code == 200
        assert posted.answer().status_code == 499


def test_an_admin_cancels_anybodys_request(engine: FakeEngine, tmp_path: Path) -> None:
    """A key with the scope `admin` finds the requests of every key, and needs no other scope for it."""
    engine.delay = 0.3
    file = tmp_path / "keys"
    file.write_text("boss admin\n")
    with serve(engine, api_key="first", api_key_file=str(file)) as server:
        posted = Posted(server, {"inputs": "the"}, {"x-request-id": "mine", "authorization": "Bearer first"})
        wait_until(lambda: engine.running)
        headers = {"authorization": "Bearer boss"}
        assert server.client.post("/generate", json={"inputs": "the"}, headers=headers).status_code == 403
        assert server.client.post("/cancel/mine", headers=headers).status_code == 200
        assert posted.answer().status_code == 499
