"""PromQL queries of the dashboard's variables: `MATCH` and `RATE` are their label matchers and interval."""

from dataclasses import dataclass

MATCH = 'job=~"$job",instance=~"$instance"'
RATE = "[$__rate_interval]"
TTFT = "peregrine_time_to_first_token_seconds"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query and how the legend calls its series."""

    expr: str
    legend: str
    is_heatmap: bool = False
    has_exemplars: bool = False


def with_everything_chosen(expr: str, interval: str) -> str:
    """A query as Grafana sends it with all jobs and instances; `interval`: the value of $__rate_interval."""
    return expr.replace("$__rate_interval", interval).replace("$job", ".+").replace("$instance", ".+")


def total(metric: str, by: str = "", matchers: str = "") -> str:
    """Sum of a gauge over the replicas."""
    return f"sum{_by(by)}({metric}{{{MATCH}{matchers}}})"


def rate(counter: str, by: str = "", matchers: str = "") -> str:
    """Sum of the rates of a counter over the replicas."""
    return f"sum{_by(by)}(rate({counter}{{{MATCH}{matchers}}}{RATE}))"


def ratio(part: str, whole: str) -> str:
    """Quotient of the rates of two counters."""
    return f"{rate(part)} / {rate(whole)}"


def quantile(of: float, histogram: str, by: str = "") -> str:
    """Quantile of a histogram over the replicas."""
    groups = f"le, {by}" if by else "le"
    return f"histogram_quantile({of}, {rate(f'{histogram}_bucket', groups)})"


def quantiles(histogram: str, *, has_exemplars: bool = False) -> tuple[Query, ...]:
    """The median, the 95th and the 99th percentile of a histogram."""
    return tuple(
        Query(quantile(of, histogram), f"p{of * 100:.0f}", has_exemplars=has_exemplars and of == 0.99)
        for of in (0.5, 0.95, 0.99)
    )


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""
