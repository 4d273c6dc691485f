"""A load's figures as data, with the machine that they came from, and its charts."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.load.client import Answer
from benchmarks.load.report import first_token_seconds, gaps
from benchmarks.plots.svg import Points, Series, cumulative, line_chart

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
    }


def cpu_name() -> str:
    """As the kernel calls it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def write_json(path: Path, data: object) -> None:
    """Indented, so that a diff of two runs can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n")


def write_charts(folder: Path, answers: Sequence[Answer]) -> list[Path]:
    """How long users wait for the first token and for each after it, and tokens a second over time."""
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
