"""From a comparison's samples to tables: medians and spreads over the rounds, ratios within them."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

OURS = "Peregrine"


def table(data: dict[str, Any]) -> str:
    """A Markdown block for each scenario, for the terminal and the page."""
    lines = []
    for scenario, by_peer in grouped(data["samples"]).items():
        lines += [
            f"**{scenario}**",
            "",
            "| server | tokens/s | of the hardware's | ours / theirs | first token, s | between tokens, p50 / p99 ms |",
            "|---|---|---|---|---|---|",
            *(row(peer, samples, ours_for(peer, by_peer)) for peer, samples in by_peer.items()),
            "",
        ]
    lines += [f"- {peer}: not measured ({reason})" for peer, reason in data["skipped"].items()]
    return "\n".join(lines).rstrip() + "\n"


def grouped(samples: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Samples by scenario and server, both in the order of their first sample; the first round begins with ours."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        found[sample["scenario"]][sample["peer"]].append(sample)
    return found


def weights_of(peer: str) -> str:
    """The weight format of the named server: `bf16`, `int8` or `int4`."""
    if "bf16" in peer:
        return "bf16"
    return "int4" if peer.endswith(("int4", "q4_0")) else "int8"


def ours_for(peer: str, by_peer: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]] | None:
    """Our samples on weights of the same size; None for our own rows, or if ours did not run."""
    return None if peer.startswith(OURS) else by_peer.get(f"{OURS} {weights_of(peer)}")


def row(peer: str, samples: list[dict[str, Any]], ours: list[dict[str, Any]] | None) -> str:
    """The table row of one server in one scenario."""
    speeds = [sample["tokens_per_second"] for sample in samples]
    shares = [sample["of_hardware"] for sample in samples if sample["of_hardware"]]
    first = statistics.median(sample["first_token"]["p50"] for sample in samples)
    between = [sample["inter_token"] for sample in samples if sample["inter_token"]]
    waits = [f"{statistics.median(s[p] for s in between) * 1e3:.0f}" for p in ("p50", "p99") if between]
    cells = [
        peer,
        spread(speeds, 1),
        spread(shares, 2) if shares else "",
        spread(ratios(ours, samples), 2) if ours else "",
        f"{first:.2f}",
        " / ".join(waits),
    ]
    return markdown_row(cells)


def markdown_row(cells: Iterable[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def ratios(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> list[float]:
    """Ratios of tokens a second, in the rounds that both servers have."""
    own = {sample["round"]: sample["tokens_per_second"] for sample in ours}
    return [own[s["round"]] / s["tokens_per_second"] for s in theirs if s["round"] in own]


def spread(values: Sequence[float], digits: int) -> str:
    """Median, with minimum and maximum if there are several values; empty for none."""
    if not values:
        return ""
    median = f"{statistics.median(values):.{digits}f}"
    return median if len(values) == 1 else f"{median} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


def quartiles(values: Sequence[float], digits: int) -> str:
    """Median, first and third quartile: of many short samples, the extremes are the machine's noise."""
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.{digits}f} [{low:.{digits}f}-{high:.{digits}f}]"


def median_bounds(values: Sequence[float]) -> tuple[float, float]:
    """95 % confidence interval of the median: two order statistics, whose ranks follow from the binomial distribution
    (here its normal approximation)."""
    ordered, half = sorted(values), 0.98 * math.sqrt(len(values))
    low, high = math.floor(len(values) / 2 - half), math.ceil(len(values) / 2 + half)
    return ordered[max(low, 0)], ordered[min(high, len(values) - 1)]
