"""Histograms for what is observed at every token or step: a tenth of the cost of prometheus_client's."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class TokenHistogram(Collector):
    """A histogram without labels and without a lock: it is observed on the event loop only."""

    def __init__(self, name: str, help: str, bounds: Sequence[float]) -> None:
        """`bounds`: the upper bounds of the buckets, ascending; the bucket up to infinity is added."""
        self._name = name
        self._help = help
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Adds `value`, `count` times, to the first bucket whose bound is not below it."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The series' name and help, for the registry."""
        return [HistogramMetricFamily(self._name, self._help)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """The series as Prometheus defines it: each bucket counts the values of all smaller ones as well."""
        return [HistogramMetricFamily(self._name, self._help, buckets=self.buckets(), sum_value=self._sum)]

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, number of values not above it) of every bucket."""
        bounds = [*map(str, self._bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts)), strict=True))

    def add_to(self, family: HistogramMetricFamily, label: str) -> None:
        """Adds its buckets and sum to `family` under that value of the label."""
        family.add_metric([label], self.buckets(), self._sum)


class LabelledHistograms(Collector):
    """Several histograms as one series with a label, exposed under one or more names."""

    def __init__(self, names: Mapping[str, str], label: str, histograms: Mapping[str, TokenHistogram]) -> None:
        """`names`: name -> help; `histograms`: value of the label -> histogram."""
        self._names = names
        self._label = label
        self._histograms = histograms

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The names and helps, for the registry."""
        return [HistogramMetricFamily(name, help, labels=[self._label]) for name, help in self._names.items()]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """One family for each name, with all histograms in it."""
        for family in self.describe():
            for value, histogram in self._histograms.items():
                histogram.add_to(family, value)
            yield family
