"""Charts of a load."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.load.client import Answer
from benchmarks.load.report import first_token_seconds, gaps
from benchmarks.plots.svg import Points, Series, cumulative, line_chart


def write_charts(folder: Path, answers: Sequence[Answer]) -> list[Path]:
    """Writes the distributions of time to first token and between tokens, and tokens a second over time."""
    first = [first_token_seconds(a) * 1e3 for a in answers if a.token_times]
    between = [gap * 1e3 for gap in gaps(answers)]
    waits = [("first token", cumulative(first)), ("between tokens", cumulative(between))]
    series = [Series(name, points) for name, points in waits if points]
    charts = {"tokens.svg": line_chart("Tokens a second", "seconds", "", [Series("tokens/s", throughput(answers))])}
    if series:
        charts["latency.svg"] = line_chart("How long users wait", "milliseconds", "% of waits", series, is_log_x=True)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in charts.items():
        (folder / name).write_text(text)
    return [folder / name for name in charts]


def throughput(answers: Sequence[Answer], bins: int = 60) -> Points:
    """Tokens a second in each of `bins` equal parts of the run."""
    begin, end = min(a.sent for a in answers), max(a.end for a in answers)
    width = (end - begin) / bins
    counts = [0] * bins
    for answer in answers:
        for at in answer.token_times:
            counts[min(bins - 1, int((at - begin) / width))] += 1
    return [((i + 0.5) * width, count / width) for i, count in enumerate(counts)]
