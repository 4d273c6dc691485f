"""Shards that go wrong in ways that no signal brings about: garbage, a step without end, a processor that raises."""

import signal
from pathlib import Path

import pytest

from ends import EndingServer
from injected import injected

pytestmark = pytest.mark.slow

GARBAGE = """
    from peregrine_server import protocol
    encode, count = protocol.encode, 0

    def garbled(message):
        global count
        count += isinstance(message, protocol.StepResult) and len(message.token_ids) > 0
        return encode(message) if count < 20 else b"garbage"

    protocol.encode = garbled
"""
ENDLESS = """
    import time
    from peregrine_server import protocol
    decode = protocol.decode_to_shard

    def stuck(data):
        message = decode(data)
        if isinstance(message, protocol.Step) and message.new and len(message.new[0].token_ids) == 4:
            time.sleep(10**6)
        return message

    protocol.decode_to_shard = stuck
"""
RAISING = """
    from dataclasses import replace
    from peregrine_server.sampling import registry

    def fail(scores, rows):
        raise KeyError("/usr/lib/secret.py")

    registry.PROCESSORS = tuple(
        replace(each, apply=fail) if "typical_p" in each.fields else each for each in registry.PROCESSORS
    )
"""


def test_a_shard_that_answers_garbage(tmp_path: Path) -> None:
    """Every stream ends with an error event."""
    with EndingServer(tmp_path, env=injected(tmp_path / "code", GARBAGE)) as server:
        outcome = server.end(lambda: server.open_streams(2), "shard answers garbage, 2 streams")
    assert (outcome.code, outcome.clients, outcome.left) == (1, ["generation"] * 2, [])
    assert "shard 0 sent an unknown message" in outcome.lines[-1]


def test_a_step_that_never_ends(tmp_path: Path) -> None:
    """The shard lives and beats, and is given up after ten times --shard-timeout."""
    env = injected(tmp_path / "code", ENDLESS)
    with EndingServer(tmp_path, "--shard-timeout", "1", env=env) as server:
        server.open_streams(1)
        outcome = server.end(lambda: server.generate("x", max_new_tokens=2), "a step never ends, 1 stream")
    assert (outcome.code, outcome.clients, outcome.left) == (1, ["generation"], [])
    assert "did not finish a step in 10 s (ten times --shard-timeout)" in outcome.lines[-1]
    assert outcome.seconds < 20


def test_a_processor_that_raises(tmp_path: Path) -> None:
    """It ends its own request, whose id the log has beside the exception, and no other."""
    with EndingServer(tmp_path, env=injected(tmp_path / "code", RAISING)) as server:
        server.open_streams(2, max_new_tokens=100)
        failed = server.generate("once", max_new_tokens=5, typical_p=0.5)
        assert failed.status_code == 424
        assert failed.json()["error"] == "Request failed during generation: `typical_p` cannot be applied"
        outcome = server.end(server.send(signal.SIGTERM), "a processor raises beside 2 streams; SIGTERM")
        said = [line for line in server.said.splitlines() if f"id={failed.headers['x-request-id']}" in line]
    assert (outcome.code, outcome.clients, outcome.left) == (0, ["whole"] * 2, [])
    assert any("cause=ShardFault: KeyError: '/usr/lib/secret.py'" in line for line in said)
