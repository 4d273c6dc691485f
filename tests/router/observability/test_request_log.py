"""The line at the end of each request."""

import asyncio
import logging
import re

import pytest

from fakes import FakeEngine, serve
from peregrine_router.observability.log import LineFormatter
from peregrine_router.observability.observer import RequestRecord
from peregrine_router.observability.request_log import MAX_REFUSAL_LINES, REFUSAL_SECONDS, RequestLog
from peregrine_router.request import Overloaded

NAME = "peregrine_router.observability.request_log"


def test_a_line_tells_how_a_request_ended(engine: FakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    """Id, lengths, reason or error, and the milliseconds of each phase, under the name that operators filter by."""
    caplog.set_level(logging.INFO)
    with serve(engine) as server:
        answer = server.generate(max_new_tokens=3)
        refused = server.generate(temperature=0)
    done, failed = (LineFormatter().format(each) for each in caplog.records if each.name == NAME)
    id, num_tokens = answer.headers["x-request-id"], len(engine.requests[0].prompt_ids)
    durations = r" total_ms=\d+ validation_ms=\d+ queue_ms=\d+ inference_ms=\d+"
    expected = f"done id={id} input_tokens={num_tokens} generated_tokens=3 finish_reason=length{durations}"
    assert re.fullmatch(rf"\S+Z INFO {NAME}: {expected}", done)
    expected = f"failed id={refused.headers['x-request-id']} input_tokens=0 err=validation{durations}"
    assert re.fullmatch(rf"\S+Z INFO {NAME}: {expected}", failed)


@pytest.mark.slow
def test_refusals_have_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Beyond a few in a second, requests refused for overload are counted in one line; then all begins anew."""

    async def refuse() -> None:
        log = RequestLog()
        for _ in range(2):
            for _ in range(MAX_REFUSAL_LINES + 5):
                log.failed(RequestRecord("id", 0.0, ended_at=0.0), Overloaded(), "overloaded")
            await asyncio.sleep(1.1 * REFUSAL_SECONDS)

    caplog.set_level(logging.INFO)
    asyncio.run(refuse())
    lines = [LineFormatter().format(each) for each in caplog.records if each.name == NAME]
    assert len(lines) == 2 * (MAX_REFUSAL_LINES + 1)
    assert lines[MAX_REFUSAL_LINES].endswith(": more requests failed requests=5 err=overloaded seconds=1.0")
