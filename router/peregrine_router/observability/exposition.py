"""The two text formats of Prometheus: 0.0.4, and OpenMetrics, which has exemplars and which Prometheus prefers."""

import re
from collections.abc import Collection, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from peregrine_router.observability.histogram import braces

TEXT = "text/plain; version=0.0.4"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_QUALITY = re.compile(r";\s*q=([\d.]+)")


def prefers_openmetrics(accept: str) -> bool:
    """Whether a request's `Accept` asks for OpenMetrics rather than for plain text."""
    best = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for entry in accept.lower().split(","):
        type, quality = entry.partition(";")[0].strip(), _QUALITY.search(entry)
        if type in best:
            best[type] = max(best[type], _number(quality[1]) if quality else 1.0)
    return best["application/openmetrics-text"] > best["text/plain"]


def registry_text(registry: CollectorRegistry, *, is_openmetrics: bool) -> Iterator[str]:
    """The families of a registry. TGI's counters keep their names, which have no `_total`; the client library's series
    of when a counter was made are left out.

    In OpenMetrics every counter ends in `_total`, and belongs to a family that is called as it is without: TGI's, and
    those whose family's name a gauge bears, are of the type `unknown` there.
    """
    families = list(registry.collect())
    gauges = {family.name for family in families if family.type == "gauge"} if is_openmetrics else set[str]()
    for family in families:
        yield from _family_text(family, gauges, is_openmetrics=is_openmetrics)


def _family_text(family: Metric, gauges: Collection[str], *, is_openmetrics: bool) -> Iterator[str]:
    name, kind, is_tgi = family.name, family.type, family.name.startswith("tgi_")
    if kind == "counter":
        if is_openmetrics and (is_tgi or name in gauges):
            kind = "unknown"
        if not is_tgi and not (is_openmetrics and kind == "counter"):
            name += "_total"
    if kind == "unknown" and not is_openmetrics:
        kind = "untyped"
    yield f"# HELP {name} {family.documentation}\n# TYPE {name} {kind}\n"
    for sample in family.samples:
        if not sample.name.endswith("_created"):
            yield _sample_text(sample, sample.name.removesuffix("_total") if is_tgi else sample.name)


def _sample_text(sample: Sample, name: str) -> str:
    return f"{name}{braces(sample.labels)} {float(sample.value)}\n"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
