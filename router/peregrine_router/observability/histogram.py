"""Histograms that are observed for every token or step: a tenth of the time that prometheus_client's own take."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class TokenHistogram(Collector):
    """Without labels; observed on the event loop alone, hence without a lock."""

    def __init__(self, name: str, help: str, bounds: Sequence[float]) -> None:
        """`bounds` are the buckets' upper ones, ascending; that to infinity is added."""
        self._name = name
        self._help = help
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Counts a value, so many times, in the first bucket whose bound is not below it."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The name, for the registry."""
        return [HistogramMetricFamily(self._name, self._help)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """As Prometheus wants them: each bucket counts the smaller ones as well."""
        return [HistogramMetricFamily(self._name, self._help, buckets=self.buckets(), sum_value=self._sum)]

    def buckets(self) -> list[tuple[str, float]]:
        """Each upper bound, and how many values are not above it."""
        bounds = [*map(str, self._bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts)), strict=True))

    def add_to(self, family: HistogramMetricFamily, label: str) -> None:
        """Its values as those of a label."""
        family.add_metric([label], self.buckets(), self._sum)


class Labelled(Collector):
    """Histograms as one series with a label, under every name that it has."""

    def __init__(self, names: Mapping[str, str], label: str, histograms: Mapping[str, TokenHistogram]) -> None:
        """`names` and the help of each; `histograms` by the label's value."""
        self._names = names
        self._label = label
        self._histograms = histograms

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The names, for the registry."""
        return [HistogramMetricFamily(name, help, labels=[self._label]) for name, help in self._names.items()]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """As Prometheus wants them."""
        for family in self.describe():
            for value, histogram in self._histograms.items():
                histogram.add_to(family, value)
            yield family
