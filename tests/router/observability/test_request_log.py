"""The line at the end of each request."""

import logging
import re

import pytest

from fakes import FakeEngine, serve
from peregrine_router.observability.log import LineFormatter


def test_a_line_tells_how_a_request_ended(engine: FakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    """Id, lengths, reason or error, and the milliseconds of each phase, under the name that operators filter by."""
    caplog.set_level(logging.INFO)
    with serve(engine) as server:
        answer = server.generate(max_new_tokens=3)
        refused = server.generate(temperature=0)
    name = "peregrine_router.observability.request_log"
    done, failed = (LineFormatter().format(each) for each in caplog.records if each.name == name)
    id, num_tokens = answer.headers["x-request-id"], len(engine.requests[0].prompt_ids)
    durations = r" total_ms=\d+ validation_ms=\d+ queue_ms=\d+ inference_ms=\d+"
    expected = f"done id={id} input_tokens={num_tokens} generated_tokens=3 finish_reason=length{durations}"
    assert re.fullmatch(rf"\S+Z INFO {name}: {expected}", done)
    expected = f"failed id={refused.headers['x-request-id']} input_tokens=0 err=validation{durations}"
    assert re.fullmatch(rf"\S+Z INFO {name}: {expected}", failed)
