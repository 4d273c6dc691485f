"""Draws the dashboard's panels from what a Prometheus has seen, without Grafana, to be looked at:
python -m scripts.dashboard.draw http://127.0.0.1:9090 FILE.png [SECONDS]. Needs matplotlib, which nothing else does."""

import json
import re
import sys
import time
import urllib.parse
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter
from scripts.dashboard.build import COLUMNS, dashboard
from scripts.dashboard.queries import with_everything_chosen

NUM_POINTS = 120
INCHES_PER_COLUMN, INCHES_PER_ROW = 0.8, 0.38
SUFFIXES = {"s": "s", "bytes": "B", "Bps": "B/s", "flops": "FLOP/s"}


class Series(NamedTuple):
    """A line: its legend, seconds before now, and the values."""

    legend: str
    at: list[float]
    values: list[float]


def main() -> None:
    """Draws every panel at its place."""
    url, file = sys.argv[1], Path(sys.argv[2])
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 300.0
    panels = dashboard()["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure((COLUMNS * INCHES_PER_COLUMN, height * INCHES_PER_ROW), layout="none")
    for panel in panels:
        place = panel["gridPos"]
        left, bottom = place["x"] / COLUMNS, 1 - (place["y"] + place["h"]) / height
        if panel["type"] == "row":
            figure.text(left + 0.005, bottom + 0.2 / height, panel["title"], fontsize=13, weight="bold")
            continue
        margin = 0.2 if panel["type"] in ("stat", "gauge") else 1.6
        axes = figure.add_axes(
            (left + 0.04, bottom + margin / height, place["w"] / COLUMNS - 0.05, (place["h"] - margin - 1) / height)
        )
        draw(axes, panel, [series for target in panel["targets"] for series in read(url, target, seconds)])
    figure.savefig(file, dpi=60)


def read(url: str, target: dict[str, Any], seconds: float) -> list[Series]:
    """Every series of a query."""
    step = max(seconds / NUM_POINTS, 1.0)
    now = time.time()
    parameters = {
        "query": with_everything_chosen(target["expr"], f"{max(4 * step, 10):.0f}s"),
        "start": now - seconds,
        "end": now,
        "step": step,
    }
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{urllib.parse.urlencode(parameters)}") as answer:
        result = json.load(answer)["data"]["result"]
    return [_series(each, target["legendFormat"], now) for each in result]


def _series(found: dict[str, Any], legend: str, now: float) -> Series:
    labels = found["metric"]
    at = [float(at) - now for at, _ in found["values"]]
    name = re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), legend)
    return Series(name, at, [float(value) for _, value in found["values"]])


def draw(axes: Axes, panel: dict[str, Any], found: list[Series]) -> None:
    """Draws one panel."""
    defaults = panel["fieldConfig"]["defaults"]
    axes.set_title(panel["title"], fontsize=9, loc="left")
    if not found:
        axes.text(0.5, 0.5, "No data", ha="center", transform=axes.transAxes, color="red")
        return
    if panel["type"] in ("stat", "gauge"):
        _draw_numbers(axes, defaults["unit"], found)
    elif panel["type"] == "heatmap":
        _draw_heatmap(axes, found)
    else:
        _draw_lines(axes, defaults, found)


def _formatted(value: float, unit: str) -> str:
    return f"{value:.0%}" if unit == "percentunit" else EngFormatter().format_eng(value) + SUFFIXES.get(unit, "")


def _draw_numbers(axes: Axes, unit: str, found: list[Series]) -> None:
    axes.axis("off")
    text = "\n".join(f"{legend} {_formatted(values[-1], unit)}" for legend, _, values in found)
    axes.text(0.0, 0.5, text, fontsize=14 if len(found) == 1 else 10, va="center", transform=axes.transAxes)


def _draw_heatmap(axes: Axes, found: list[Series]) -> None:
    found = sorted(found, key=lambda each: float(each.legend))
    length = min(len(each.values) for each in found)
    counts = [[0.0] * length] + [each.values[-length:] for each in found]
    rows = [[high - low for low, high in zip(*pair, strict=True)] for pair in pairwise(counts)]
    axes.imshow(rows, aspect="auto", origin="lower", cmap="Oranges", interpolation="nearest")
    axes.set_yticks(range(0, len(found), 4), [each.legend for each in found[::4]], fontsize=7)
    axes.set_xticks([])


def _draw_lines(axes: Axes, defaults: dict[str, Any], found: list[Series]) -> None:
    if defaults["custom"]["stacking"]["mode"] == "normal":
        length = min(len(each.values) for each in found)
        values = [each.values[-length:] for each in found]
        axes.stackplot(found[0].at[-length:], values, labels=[each.legend for each in found])
    else:
        for each in found:
            axes.plot(each.at, each.values, label=each.legend, linewidth=1)
    axes.set_ylim(0, defaults.get("max"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _formatted(value, defaults["unit"])))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(0, -0.08), ncols=5, frameon=False)


if __name__ == "__main__":
    main()
