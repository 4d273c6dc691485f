"""A line chart as SVG text: axes with round numbers, a legend, nothing else. Reads well on white and in a browser."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 50
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Series:
    """A line through points in ascending x."""

    name: str
    points: Points


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to pixels."""

    low: float
    high: float
    start: float
    stop: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (_log(v) if self.is_log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Round numbers within the range: about six multiples of 1, 2 or 5; on a log axis powers of ten, and 2 and 5 of
        them if there is room."""
        if self.is_log:
            first, last = math.floor(_log(self.low)), math.ceil(_log(self.high))
            multiples = (1, 2, 5) if last - first <= 4 else (1,)
            found = [10.0**n * m for n in range(first, last + 1) for m in multiples]
            return [value for value in found if self.low <= value <= self.high]
        rough = (self.high - self.low) / 6
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
        return [n * step for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def line_chart(title: str, x_label: str, y_label: str, series: Sequence[Series], is_log_x: bool = False) -> str:
    """The SVG document; y begins at 0. Raises ValueError if there is nothing to draw."""
    xs = [x for each in series for x, _ in each.points if x > 0 or not is_log_x]
    ys = [y for each in series for _, y in each.points]
    if not xs:
        raise ValueError("no points to draw")
    low, high = _range(min(xs), max(xs), is_log_x)
    x = Axis(low, high, LEFT, WIDTH - RIGHT, is_log_x)
    y = Axis(0.0, max(*ys, 1e-9) * 1.05, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 20, title, 'font-size="14" font-weight="bold"'),
        *_grid(x, y),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_label, 'text-anchor="middle"'),
        _text(
            0, 0, y_label, f'text-anchor="middle" transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"'
        ),
        *(_line(each, x, y, color) for each, color in zip(series, _colors(len(series)), strict=True)),
        *_legend(series),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def cumulative(values: Sequence[float]) -> list[tuple[float, float]]:
    """The share of values at most x, in per cent: 200 points at most."""
    ordered = sorted(values)
    at = sorted({min(len(ordered) - 1, round(i * (len(ordered) - 1) / 199)) for i in range(200)} if ordered else ())
    return [(ordered[i], 100 * (i + 1) / len(ordered)) for i in at]


def _range(low: float, high: float, is_log: bool) -> tuple[float, float]:
    if low < high:
        return low, high
    return (low / 2, low * 2) if is_log else (low - 0.5, low + 0.5)


def _grid(x: Axis, y: Axis) -> list[str]:
    lines = []
    for value in x.ticks():
        at = x.at(value)
        lines.append(f'<path d="M{at:.1f} {y.start}V{y.stop}" stroke="#e5e5e5"/>')
        lines.append(_text(at, y.start + 18, _number(value), 'text-anchor="middle"'))
    for value in y.ticks():
        at = y.at(value)
        lines.append(f'<path d="M{x.start} {at:.1f}H{x.stop}" stroke="#e5e5e5"/>')
        lines.append(_text(x.start - 8, at + 4, _number(value), 'text-anchor="end"'))
    return [*lines, f'<path d="M{x.start} {y.stop}V{y.start}H{x.stop}" stroke="#444" fill="none"/>']


def _line(series: Series, x: Axis, y: Axis, color: str) -> str:
    points = " ".join(f"{x.at(max(a, x.low)):.1f},{y.at(b):.1f}" for a, b in series.points)
    return f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>'


def _legend(series: Sequence[Series]) -> list[str]:
    """A legend in the lower right corner, which cumulative shares leave free; none for a single series."""
    lines: list[str] = []
    if len(series) == 1:
        return lines
    for row, (each, color) in enumerate(zip(series, _colors(len(series)), strict=True)):
        at = HEIGHT - BOTTOM - 16 * (len(series) - row)
        lines.append(f'<path d="M{WIDTH - 260} {at}h18" stroke="{color}" stroke-width="3"/>')
        lines.append(_text(WIDTH - 236, at + 4, each.name))
    return lines


def _colors(count: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(count)]


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:,.10g}" if abs(value) < 1e6 else f"{value:.3g}"


def _log(value: float) -> float:
    return math.log10(max(value, 1e-12))
