"""Histograms beside those of the client library."""

from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from peregrine_router.observability.histogram import HistogramFamily

BOUNDS = (0.1, 0.5, 2.5)
VALUES = (0.0, 0.1, 0.100001, 2.5, 9.0)


def text(family: HistogramFamily, *, is_openmetrics: bool = False) -> str:
    return "".join(family.text(is_openmetrics=is_openmetrics))


def samples(families: Sequence[Metric]) -> list[tuple[object, ...]]:
    """Name, labels and value of every line, but those of when it was made."""
    every = [sample for family in families for sample in family.samples if not sample.name.endswith("_created")]
    return sorted((each.name, sorted(each.labels.items()), each.value) for each in every)


@pytest.mark.parametrize("values", [(), VALUES])
def test_it_reads_as_the_librarys_own(values: Sequence[float]) -> None:
    """Values on, between and beyond the bounds are exposed as prometheus_client's own histogram exposes them."""
    registry = CollectorRegistry()
    family, other = HistogramFamily({"h": "Help."}, BOUNDS), Histogram("h", "Help.", registry=registry, buckets=BOUNDS)
    one = family.child()
    for value in values:
        one.observe(value)
        other.observe(value)
    theirs = generate_latest(registry).decode()
    assert samples([*parse_text(text(family))]) == samples([*parse_text(theirs)])
    assert text(family).splitlines()[:2] == theirs.splitlines()[:2]


def test_labelled_ones_read_as_the_librarys_own() -> None:
    """By the values of a label, also one that was never observed, under two names, with a label in common that needs
    escapes."""
    registry, model = CollectorRegistry(), 'a"b\\c\nd'
    family = HistogramFamily({"one": "First.", "two": "Second."}, BOUNDS, model=model)
    apart = {value: family.child(kind=value) for value in ("x", "y")}
    apart["x"].observe(0.3, 2)
    for name, help in (("one", "First."), ("two", "Second.")):
        other = Histogram(name, help, ["kind", "model"], registry=registry, buckets=BOUNDS)
        other.labels("y", model)
        for _ in range(2):
            other.labels("x", model).observe(0.3)
    assert samples([*parse_text(text(family))]) == samples([*parse_text(generate_latest(registry).decode())])


def test_a_child_is_made_once() -> None:
    """The same labels are the same histogram."""
    family = HistogramFamily({"h": "Help."}, BOUNDS)
    assert family.child(kind="x") is family.child(kind="x")
    assert family.child(kind="x") is not family.child(kind="y")


def test_exemplars_read_as_the_librarys_own() -> None:
    """In OpenMetrics a bucket names the trace of its last value that had one."""
    registry, family = CollectorRegistry(), HistogramFamily({"h": "Help."}, BOUNDS)
    one, other = family.child(), Histogram("h", "Help.", registry=registry, buckets=BOUNDS)
    for value, trace_id in ((0.2, "a" * 32), (0.3, "b" * 32), (0.4, ""), (9.0, "c" * 32)):
        one.observe(value, trace_id=trace_id)
        other.observe(value, {"trace_id": trace_id} if trace_id else None)
    ours = [*parse_openmetrics(text(family, is_openmetrics=True) + "# EOF\n")]
    theirs = [*parse_openmetrics(exposition.generate_latest(registry).decode())]
    assert samples(ours) == samples(theirs)
    assert exemplars(ours) == exemplars(theirs) == [("b" * 32, 0.3), ("c" * 32, 9.0)]


def test_plain_text_has_no_exemplars() -> None:
    """Its parsers would refuse the whole page."""
    family = HistogramFamily({"h": "Help."}, BOUNDS)
    family.child().observe(0.2, trace_id="a" * 32)
    assert "aaa" not in text(family)


def exemplars(families: Sequence[Metric]) -> list[tuple[str, float]]:
    every = [sample.exemplar for family in families for sample in family.samples]
    return [(each.labels["trace_id"], each.value) for each in every if each is not None]
