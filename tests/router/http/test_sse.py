"""Server-sent events: silences, and what may not cause one."""

import asyncio
import json
import socket
import time
from dataclasses import replace
from typing import Any

import pytest

from fakes import INFO, FakeEngine, make_tokenizer, serve, wait_until
from peregrine_router.admission.generate_parameters import GenerateParameters
from peregrine_router.admission.validator import Validator, tgi_prompt_job
from peregrine_router.http import sse
from peregrine_router.settings import Settings
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.tokenizer import Tokenizer


@pytest.mark.slow
def test_a_silence_is_filled_with_comments(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """While no token comes, a comment does every so often; clients ignore it, and the events are what they were."""
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.05)
    engine.delay = 0.3
    with serve(engine) as server:
        text = server.generate(path="/generate_stream", max_new_tokens=2).text
    events = text.split("\n\n")
    assert events.count(":") >= 4
    assert [event[:6] for event in events if event not in ("", ":")] == ["data: "] * 2


@pytest.mark.slow
def test_no_comment_while_tokens_come(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is never silent for so long carries events alone."""
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 5.0)
    engine.delay = 0.01
    with serve(engine) as server:
        assert "\n:" not in server.generate(path="/generate_stream", max_new_tokens=20, ignore_eos=True).text


@pytest.mark.slow
def test_a_reader_of_nothing_is_dropped(engine: FakeEngine) -> None:
    """A client that stops reading loses its stream within twice the timeout, long before the stream's end."""
    info = replace(INFO, max_total_tokens=30_000)
    body = b'{"inputs": "the", "parameters": {"max_new_tokens": 29000, "ignore_eos": true, "top_n_tokens": 5}}'
    head = b"POST /generate_stream HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    with serve(engine, info, slow_client_timeout=0.3) as server, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        slow.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: len(engine.cancelled) == 1, seconds=20)
        assert server.metrics()['tgi_request_failure{err="dropped"}'] == 1


@pytest.mark.slow
def test_who_waits_long_for_the_first_token_is_no_slow_client(engine: FakeEngine) -> None:
    """In a long queue it comes later than the time that a client has to read, and the stream is whole all the same."""
    engine.delay = 1.0
    with serve(engine, slow_client_timeout=0.3) as server:
        text = server.generate(path="/generate_stream", max_new_tokens=2).text
    assert text.count("data: ") == 2


@pytest.mark.parametrize("path", ["/generate_stream", "/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("character", ["\u0085", "\u2028", "\u2029"])
def test_an_event_is_one_line_for_every_client(engine: FakeEngine, path: str, character: str) -> None:
    """Clients that split lines as `str.splitlines` does get whole events: line breaks of Unicode are escaped."""
    engine.says = f"a{character}b é{character}"
    body = {"inputs": "the", "prompt": "the", "messages": [{"role": "user", "content": "the"}], "stream": True}
    with serve(engine, chat=Chat(engine.tokenizer, "{{ messages[0]['content'] }}", {})) as server:
        text = server.client.post(path, json=body).text
    events = [line.removeprefix("data: ") for line in text.splitlines() if line and line != "data: [DONE]"]
    assert len(events) > 2
    assert engine.says in "".join(text_of(json.loads(event)) for event in events)


def text_of(event: dict[str, Any]) -> str:
    """The text that an event of any API adds."""
    if "token" in event:
        return "" if event["token"]["special"] else str(event["token"]["text"])
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in event["choices"])


def test_an_error_is_one_line_for_every_client() -> None:
    """An event of any object is: an error's message may repeat what the client sent."""
    assert sse.encode_events({"error": "no \u2028"}) == b'data: {"error":"no \\u2028"}\n\n'


def test_named_events() -> None:
    """Each event has the type of its object as its name, before its data."""
    events = sse.encode_named_events({"type": "a", "n": 1}, {"type": "b.c"})
    assert events == b'event: a\ndata: {"type":"a","n":1}\n\nevent: b.c\ndata: {"type":"b.c"}\n\n'


def test_headers_of_a_stream(engine: FakeEngine) -> None:
    """No cache keeps a stream and no proxy buffers it."""
    with serve(engine) as server:
        headers = server.generate(path="/generate_stream", max_new_tokens=1).headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")
    assert headers["x-compute-characters"] == "3"


async def test_a_long_prompt_delays_no_other_stream() -> None:
    """While a prompt that takes long to tokenize is validated, the event loop goes on: all the work is on a thread."""
    tokenizer: Tokenizer = make_tokenizer()
    text = "the quick brown falcon dives again " * 20_000
    start = time.perf_counter()
    tokenizer.encode(text)
    alone = time.perf_counter() - start
    validator = Validator(tokenizer, Settings(), INFO)
    pauses: list[float] = []

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            pauses.append(now - last)
            last = now

    ticking = asyncio.create_task(tick())
    try:
        await validator.validate(
            tgi_prompt_job(text, GenerateParameters(truncate=10, max_new_tokens=1), is_stream=True)
        )
    finally:
        ticking.cancel()
        validator.close()
    assert alone > 0.1, "the prompt is too short to show anything"
    assert max(pauses) < alone / 3
