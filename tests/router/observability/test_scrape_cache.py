"""Scrapes that share a rendering."""

import time
from itertools import count

import pytest

from fakes import FakeEngine, serve
from peregrine_router.observability.metrics import Metrics
from peregrine_router.observability.scrape_cache import BURST, RENDERINGS_PER_SECOND, ScrapeCache


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def cache(clock: Clock) -> ScrapeCache:
    """A cache of texts that number the renderings."""
    numbers = count(1)
    return ScrapeCache(lambda: b"%d" % next(numbers), clock)


def test_a_few_scrapes_are_of_their_moment() -> None:
    """Renderings follow each other up to BURST, and at the long-run rate for ever."""
    clock = Clock()
    scrapes = cache(clock)
    assert [scrapes.text() for _ in range(BURST)] == [b"%d" % number for number in range(1, BURST + 1)]
    for number in range(BURST + 1, 4 * BURST):
        clock.now += 1.001 / RENDERINGS_PER_SECOND
        assert scrapes.text() == b"%d" % number


def test_a_flood_of_scrapes_gets_a_recent_text() -> None:
    """RENDERINGS_PER_SECOND of 500 scrapes a second are rendered, so a text is never older than their interval."""
    clock = Clock()
    scrapes = cache(clock)
    for _ in range(BURST):
        scrapes.text()
    before = int(scrapes.text())
    for _ in range(500):
        clock.now += 1 / 500
        last = int(scrapes.text())
    assert last - before in (RENDERINGS_PER_SECOND - 1, RENDERINGS_PER_SECOND)


def test_most_of_many_scrapes_are_not_rendered(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """GET /metrics is answered from the cache: 100 scrapes need few more renderings than the time allows."""
    calls: list[float] = []
    render = Metrics.render

    def counted(metrics: Metrics, *, is_openmetrics: bool) -> bytes:
        calls.append(time.monotonic())
        return render(metrics, is_openmetrics=is_openmetrics)

    monkeypatch.setattr(Metrics, "render", counted)
    with serve(engine) as server:
        start = time.monotonic()
        assert {server.client.get("/metrics").status_code for _ in range(100)} == {200}
        seconds = time.monotonic() - start
    assert len(calls) <= BURST + 1 + seconds * RENDERINGS_PER_SECOND
