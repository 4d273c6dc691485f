"""A panel as the tables describe it."""

from dataclasses import dataclass

from scripts.dashboard.queries import Query


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `kind`: timeseries, stat, gauge or heatmap; `width`: of Grafana's 24 columns."""

    title: str
    unit: str
    description: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    width: int = 8
    is_stacked: bool = False
