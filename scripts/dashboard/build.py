"""Writes deploy/grafana/peregrine.json: python -m scripts.dashboard.build."""

import json
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from scripts.dashboard import load_panels, state_panels
from scripts.dashboard.panel import Panel
from scripts.dashboard.queries import Query

FILE = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "peregrine.json"
ROWS = {
    "Overview": load_panels.OVERVIEW,
    "Latency": load_panels.LATENCY,
    "Throughput": load_panels.THROUGHPUT,
    "Cache": state_panels.CACHE,
    "Fairness": state_panels.FAIRNESS,
    "Faults": state_panels.FAULTS,
    "Replicas": state_panels.REPLICAS,
}
"""The rows in order: title -> panels."""
SCHEMA_VERSION = 39
"""Grafana 10.1's; later ones migrate it."""
COLUMNS = 24
HEIGHTS = {"stat": 4, "gauge": 4, "timeseries": 8, "heatmap": 8}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def main() -> None:
    """Writes the file."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text())


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=1) + "\n"


def dashboard() -> dict[str, Any]:
    """Grafana's dashboard model, version 1."""
    return {
        "uid": "peregrine",
        "title": "Peregrine",
        "description": "Falcon models served by Peregrine.",
        "tags": ["peregrine", "llm"],
        "timezone": "",
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": [_datasource(), _labels("job", ""), _labels("instance", 'job=~"$job"')]},
        "panels": list(_panels()),
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}


def _labels(name: str, matchers: str) -> dict[str, Any]:
    """A variable: the values of a label, of which any may be chosen."""
    query = f"label_values(peregrine_build_info{{{matchers}}}, {name})"
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "includeAll": True,
        "multi": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _panels() -> Iterator[dict[str, Any]]:
    ids, top = count(1), 0
    for title, panels in ROWS.items():
        yield _row(next(ids), title, top)
        top, left, height = top + 1, 0, 0
        for panel in panels:
            if left + panel.width > COLUMNS:
                top, left, height = top + height, 0, 0
            yield _panel(next(ids), panel, left, top)
            left, height = left + panel.width, max(height, _height(panel))
        top += height


def _row(id: int, title: str, top: int) -> dict[str, Any]:
    place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
    return {"id": id, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _height(panel: Panel) -> int:
    return HEIGHTS[panel.kind]


def _panel(id: int, panel: Panel, left: int, top: int) -> dict[str, Any]:
    return {
        "id": id,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": left, "y": top, "w": panel.width, "h": _height(panel)},
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
        "targets": [_target(number, query) for number, query in enumerate(panel.queries)],
    }


def _target(number: int, query: Query) -> dict[str, Any]:
    target = {
        "refId": chr(ord("A") + number),
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "exemplar": query.has_exemplars,
    }
    return {**target, "format": "heatmap"} if query.is_heatmap else target


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.unit == "percentunit" and not panel.is_stacked:
        defaults["max"] = 1
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.is_stacked else "none", "group": "A"}
        fill = 40 if panel.is_stacked else 10
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": fill, "showPoints": "never", "stacking": stacking}
    if panel.kind == "gauge":
        steps = [{"color": "green", "value": None}, {"color": "orange", "value": 0.8}, {"color": "red", "value": 0.95}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return defaults


_REDUCE = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: Mapping[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"reduceOptions": _REDUCE, "textMode": "auto", "colorMode": "value", "graphMode": "area"},
    "gauge": {"reduceOptions": _REDUCE, "showThresholdMarkers": True, "showThresholdLabels": False},
    "heatmap": {"calculate": False, "yAxis": {"unit": "s"}, "color": {"mode": "scheme", "scheme": "Oranges"}},
}


if __name__ == "__main__":
    main()
