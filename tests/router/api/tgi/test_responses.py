"""POST /generate_stream over real sockets."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes import FakeEngine, Server, serve, wait_until
from peregrine_router.request import GenerationFailed, Overloaded


def read(server: Server, inputs: str = "the", **parameters: Any) -> list[dict[str, Any]]:
    """All events of a stream."""
    body = {"inputs": inputs, "parameters": parameters}
    with server.client.stream("POST", "/generate_stream", json=body) as answer:
        assert answer.status_code == 200
        return [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data: ")]


def test_events(server: Server) -> None:
    """One event per token, counted from 1, with TGI's fields; the last has the whole text, and details if asked for."""
    events = read(server, details=True)
    assert [event["index"] for event in events] == list(range(1, len(events) + 1))
    assert all(set(event) == {"index", "token", "generated_text", "details"} for event in events)
    assert all(event["generated_text"] is None and event["details"] is None for event in events[:-1])
    assert "".join(event["token"]["text"] for event in events if not event["token"]["special"]) == " falcons dive"
    assert all(event["token"]["logprob"] == -0.5 for event in events)
    assert events[-1]["generated_text"] == " falcons dive"
    assert events[-1]["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": len(events),
        "seed": None,
        "input_length": len(server.engine.requests[0].prompt_ids),
        "cached_tokens": 0,
    }


def test_no_details_unless_asked(server: Server) -> None:
    """Without `details` the last event has null there, and top tokens are left out."""
    assert read(server)[-1]["details"] is None
    assert len(read(server, top_n_tokens=2)[0]["top_tokens"]) == 2


def test_stream_headers(server: Server) -> None:
    """A stream is uncached and unbuffered, and its headers have no times, which are not known yet."""
    with server.client.stream("POST", "/generate_stream", json={"inputs": "the"}) as answer:
        answer.read()
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-compute-type"] == "cpu+optimized"
    assert answer.headers["x-compute-characters"] == "3"
    assert "x-total-time" not in answer.headers


def test_split_characters_arrive_whole(engine: FakeEngine) -> None:
    """A character of several tokens comes with its last, in one event; the joined events are the text."""
    engine.says = "é 世界 😀 end"
    with serve(engine) as server:
        events = read(server)
    texts = [event["token"]["text"] for event in events[:-1]]
    assert "" in texts
    assert "\ufffd" not in "".join(texts)
    assert "".join(texts) == engine.says == events[-1]["generated_text"]


def test_wrong_request_is_refused_before_the_stream(server: Server) -> None:
    """A request that cannot be served has its real status and a JSON body, not a stream with an error in it."""
    answer = server.generate(path="/generate_stream", temperature=0)
    assert answer.status_code == 422
    assert answer.json()["error"] == "Input validation error: `temperature` must be strictly positive"


@pytest.mark.parametrize(
    ("error", "status"), [(Overloaded("queue full"), 429), (GenerationFailed("gone"), 424)], ids=["full", "gone"]
)
def test_refusal_of_the_engine_comes_before_the_stream(engine: FakeEngine, error: Exception, status: int) -> None:
    """A request that the engine refuses has its real status and a JSON body too."""
    engine.submit_error = error
    with serve(engine) as server:
        answer = server.generate(path="/generate_stream")
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "error_type"}


def test_failure_after_the_start_is_an_event(engine: FakeEngine) -> None:
    """A stream that fails ends with an event that says why."""
    engine.error_at, engine.error = 3, GenerationFailed("shard 0 exited")
    with serve(engine) as server:
        events = read(server)
        assert server.metrics()['tgi_request_failure{err="generation"}'] == 1
    assert len(events) == 3
    assert events[-1] == {"error": "Request failed during generation: shard 0 exited", "error_type": "generation"}


def test_stream_without_an_end_is_an_error(engine: FakeEngine) -> None:
    """A stream whose last token never comes ends with an event that says so."""
    engine.is_cut = True
    with serve(engine) as server:
        last = read(server)[-1]
    assert last == {"error": "Incomplete generation stream", "error_type": "incomplete_generation_stream"}


def test_unexpected_failure_tells_nothing_of_the_inside(engine: FakeEngine) -> None:
    """A fault of the server itself ends the stream with an event that shows no message or traceback."""
    engine.error_at, engine.error = 1, ZeroDivisionError("secret")
    with serve(engine) as server:
        (event,) = read(server)
    assert event["error_type"] == "internal"
    assert "secret" not in event["error"]


def test_client_that_leaves_is_cancelled(engine: FakeEngine) -> None:
    """Closing a stream cancels its request and frees its permit."""
    engine.delay = 0.2
    with serve(engine, max_concurrent_requests=1) as server:
        with server.client.stream("POST", "/generate_stream", json={"inputs": "the"}) as answer:
            next(answer.iter_lines())
        wait_until(lambda: engine.cancelled == [engine.requests[0].id])
        engine.delay = 0.0
        assert read(server)[-1]["generated_text"] == " falcons dive"
        assert server.metrics()['tgi_request_failure{err="dropped"}'] == 1


async def test_many_streams_at_once(engine: FakeEngine) -> None:
    """Forty concurrent streams each get their own whole text, and every permit comes back."""
    with serve(engine, max_concurrent_requests=40) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=20, limits=httpx.Limits()) as client:
            body = {"inputs": "the"}
            answers = await asyncio.gather(*(client.post("/generate_stream", json=body) for _ in range(40)))
            again = await asyncio.gather(*(client.post("/generate", json=body) for _ in range(40)))
    assert all('"generated_text":" falcons dive"' in answer.text for answer in answers)
    assert {answer.status_code for answer in again} == {200}
    assert not engine.running


SLOW_SERVER = """
import socket, uvicorn
from fakes import INFO, FakeEngine, make_tokenizer
from peregrine_router.app import build_app
from peregrine_router.settings import Settings
engine = FakeEngine(make_tokenizer(), delay=0.2)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
app = build_app(engine, engine.tokenizer, Settings(), INFO)
uvicorn.Server(uvicorn.Config(app, log_config=None)).run([listener])
"""


@pytest.mark.slow
def test_running_streams_finish_after_sigterm() -> None:
    """A server told to stop ends its running streams properly first."""
    path = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", SLOW_SERVER]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{process.stdout.readline().strip()}/generate_stream"
        with httpx.stream("POST", url, json={"inputs": "the"}, timeout=10) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            rest = "".join(lines)
    assert '"generated_text":" falcons dive"' in rest
