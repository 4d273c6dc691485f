"""The server at ten times the load that it can answer."""

import pytest
from benchmarks.overload import MODEL, server, short_request
from benchmarks.router import CORES
from benchmarks.short_requests import Answers, closed_loop, open_loop

pytestmark = [pytest.mark.slow, pytest.mark.skipif(len(CORES) < 2, reason="server and client need a core each")]


def overloaded() -> tuple[Answers, Answers]:
    """The answers to as many requests as the server can take, and to ten times as many."""
    with server(MODEL) as running:
        closed_loop(running.port, short_request(), 32, 0.5)
        return (
            closed_loop(running.port, short_request(), 32, 1.5),
            open_loop(running.port, short_request(), 1000, 2.5),
        )


def test_ten_times_the_load_is_refused_at_once_and_harms_no_answer() -> None:
    """Every request is answered 200 or 429, the median 429 within 0.3 s, and over half the peak is answered. The goals,
    0.1 s for 99 % and 0.9, are measured by benchmarks/overload.py on a quiet machine."""
    peak, load = overloaded()
    assert load.num_failed == 0
    assert load.percentile(429, 0.5) < 0.3
    assert load.goodput > peak.goodput / 2
