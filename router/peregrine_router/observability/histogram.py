"""Histograms that are cheap to observe, at every token and step, and cheap to scrape: a tenth of the time of
prometheus_client's for both."""

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate


class Histogram:
    """Counts of values by bucket, without a lock: it is observed on the event loop only."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds`: the upper bounds of the buckets, ascending; the bucket up to infinity is added."""
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._exemplars: dict[int, str] = {}
        """Number of a bucket -> its last exemplar, as OpenMetrics writes it."""
        self.sum = 0.0

    def observe(self, value: float, count: int = 1, trace_id: str = "") -> None:
        """Adds `value`, `count` times, to the first bucket whose bound is not below it. `trace_id`: that of the trace
        that shows how the value came about, if there is one."""
        bucket = bisect_left(self._bounds, value)
        self._counts[bucket] += count
        self.sum += value * count
        if trace_id:
            self._exemplars[bucket] = f' # {{trace_id="{trace_id}"}} {value} {time.time():.3f}'

    def cumulative(self) -> list[int]:
        """For each bucket the number of values not above its bound; the last is their total."""
        return list(accumulate(self._counts))

    def exemplars(self) -> Mapping[int, str]:
        """Number of a bucket -> what stands behind its value in OpenMetrics."""
        return self._exemplars


class HistogramFamily:
    """Histograms of the same bounds, told apart by labels, exposed under one name or several."""

    def __init__(self, names: Mapping[str, str], bounds: Sequence[float], **labels: str) -> None:
        """`names`: name -> help. `labels`: those that all have in common."""
        self._names = names
        self._bounds = bounds
        self._labels = labels
        self._children: dict[tuple[tuple[str, str], ...], Histogram] = {}
        self._heads: dict[tuple[str, Histogram], list[str]] = {}
        """Every line of a histogram under a name, up to its value."""

    def child(self, **labels: str) -> Histogram:
        """The histogram with these labels, made if need be. Their values must be few: no client may choose them."""
        key = tuple(labels.items())
        if key not in self._children:
            child = self._children[key] = Histogram(self._bounds)
            for name in self._names:
                self._heads[name, child] = list(_heads(name, self._bounds, {**self._labels, **labels}))
        return self._children[key]

    def text(self, *, is_openmetrics: bool) -> Iterator[str]:
        """The exposition, in parts of whole lines."""
        for name, help in self._names.items():
            yield f"# HELP {name} {help}\n# TYPE {name} histogram\n"
            for child in self._children.values():
                yield _child_text(child, self._heads[name, child], is_openmetrics=is_openmetrics)


def _child_text(histogram: Histogram, heads: Sequence[str], *, is_openmetrics: bool) -> str:
    counts, exemplars = histogram.cumulative(), histogram.exemplars() if is_openmetrics else {}
    lines = list(map("%s%d\n".__mod__, zip(heads, [*counts, counts[-1]], strict=False)))
    for bucket, exemplar in exemplars.items():
        lines[bucket] = f"{heads[bucket]}{counts[bucket]}{exemplar}\n"
    return "".join([*lines, f"{heads[-1]}{histogram.sum}\n"])


def _heads(name: str, bounds: Sequence[float], labels: Mapping[str, str]) -> Iterator[str]:
    """The lines of a histogram without their values: buckets, count, sum."""
    for bound in (*map(str, bounds), "+Inf"):
        yield f"{name}_bucket{braces({**labels, 'le': bound})} "
    yield f"{name}_count{braces(labels)} "
    yield f"{name}_sum{braces(labels)} "


def braces(labels: Mapping[str, str]) -> str:
    """Labels as both formats write them behind a name; nothing if there are none."""
    pairs = ",".join(f'{label}="{_escape(value)}"' for label, value in sorted(labels.items()))
    return f"{{{pairs}}}" if pairs else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
