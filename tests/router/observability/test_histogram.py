"""The histogram of the time between tokens."""

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from peregrine_router.observability.histogram import LabelledHistograms, TokenHistogram

BOUNDS = (0.1, 0.5, 2.5)


@pytest.mark.parametrize("values", [(), (0.0, 0.1, 0.100001, 2.5, 9.0)])
def test_it_reads_as_the_librarys_own(values: tuple[float, ...]) -> None:
    """Values on, between and beyond the bounds are exposed as prometheus_client's own histogram exposes them."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    one, other = TokenHistogram("h", "Help.", BOUNDS), Histogram("h", "Help.", registry=theirs, buckets=BOUNDS)
    ours.register(one)
    for value in values:
        one.observe(value)
        other.observe(value)
    lines = [line for line in generate_latest(theirs).splitlines() if b"_created" not in line]
    assert generate_latest(ours).splitlines() == lines


def test_labelled_ones_read_as_the_librarys_own() -> None:
    """By the values of a label, also one that was never observed, under two names."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    apart = {value: TokenHistogram(value, "Of one value.", BOUNDS) for value in ("x", "y")}
    ours.register(LabelledHistograms({"one": "First.", "two": "Second."}, "kind", apart))
    apart["x"].observe(0.3, 2)
    for name, help in (("one", "First."), ("two", "Second.")):
        other = Histogram(name, help, ["kind"], registry=theirs, buckets=BOUNDS)
        other.labels("y")
        for _ in range(2):
            other.labels("x").observe(0.3)
    lines = [line for line in generate_latest(theirs).splitlines() if b"_created" not in line]
    assert sorted(generate_latest(ours).splitlines()) == sorted(lines)
