"""From answers to figures: percentiles, throughput, goodput."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.load.client import Answer

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Slo:
    """Service level objective of a request; both limits in seconds."""

    first_token: float
    per_token: float
    """The mean time between a request's tokens."""

    def is_met(self, answer: Answer) -> bool:
        return (
            answer.error is None
            and bool(answer.token_times)
            and first_token_seconds(answer) <= self.first_token
            and seconds_per_token(answer) <= self.per_token
        )


def first_token_seconds(answer: Answer) -> float:
    """Time to first token in seconds; the answer must have a token."""
    return answer.token_times[0] - answer.sent


def seconds_per_token(answer: Answer) -> float:
    """Mean seconds a token after the first; 0 for a single token."""
    return (answer.token_times[-1] - answer.token_times[0]) / max(1, len(answer.token_times) - 1)


def gaps(answers: Sequence[Answer]) -> list[float]:
    """Seconds between neighbouring tokens, of all answers together."""
    return [after - before for answer in answers for before, after in pairwise(answer.token_times)]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Percentiles, linear between the ranks; empty for no values."""
    if not values:
        return {}
    return {f"p{p}": float(np.percentile(values, p)) for p in PERCENTILES} | {"mean": float(np.mean(values))}


def summarize(answers: Sequence[Answer], slo: Slo) -> dict[str, Any]:
    """Seconds and tokens a second, over the time from the first request to the last end.

    Goodput is requests a second that met the SLO (DistServe, OSDI 2024). A client that left by itself counts with the
    tokens that it received.
    """
    seconds = max(a.end for a in answers) - min(a.sent for a in answers)
    answered = [a for a in answers if a.token_times]
    num_tokens = sum(len(a.token_times) for a in answered)
    return {
        "requests": len(answers),
        "errors": sum(a.error is not None for a in answers),
        "cancelled": sum(a.is_cancelled for a in answers),
        "seconds": seconds,
        "prompt_tokens": sum(a.prompt_tokens for a in answers),
        "generated_tokens": num_tokens,
        "tokens_per_second": num_tokens / seconds,
        "requests_per_second": len(answered) / seconds,
        "goodput": sum(slo.is_met(a) for a in answers) / seconds,
        "slo": {"first_token": slo.first_token, "per_token": slo.per_token},
        "slo_attainment": sum(slo.is_met(a) for a in answers) / len(answers),
        "first_token": percentiles([first_token_seconds(a) for a in answered]),
        "inter_token": percentiles(gaps(answered)),
        "end_to_end": percentiles([a.end - a.sent for a in answered]),
    }


def table(summary: dict[str, Any]) -> str:
    """A table for a terminal."""
    lines = [
        f"{summary['requests']} requests in {summary['seconds']:.1f} s: {summary['errors']} errors, "
        f"{summary['cancelled']} cancelled by the client",
        f"{summary['tokens_per_second']:.1f} tokens/s, {summary['requests_per_second']:.2f} requests/s, "
        f"goodput {summary['goodput']:.2f} requests/s "
        f"({summary['slo_attainment']:.0%} within {summary['slo']['first_token'] * 1e3:.0f} ms to the first token "
        f"and {summary['slo']['per_token'] * 1e3:.0f} ms a token)",
        f"{'milliseconds':16}" + "".join(f"{f'p{p}':>10}" for p in PERCENTILES) + f"{'mean':>10}",
    ]
    for name, text in (("first_token", "first token"), ("inter_token", "between tokens"), ("end_to_end", "whole")):
        if summary[name]:
            lines.append(f"{text:16}" + "".join(f"{value * 1e3:10.1f}" for value in summary[name].values()))
    return "\n".join(lines)
