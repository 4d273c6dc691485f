"""Percentiles, throughput and goodput, on answers whose times are known."""

import pytest
from benchmarks.load.client import Answer
from benchmarks.load.report import Slo, percentiles, summarize, table

ANSWERS = [
    Answer(10, 0.0, [1.0, 2.0, 3.0], 3.0),
    Answer(20, 1.0, [1.5, 5.0], 5.0),
    Answer(5, 2.0, [], 4.0, error="503: no"),
    Answer(5, 2.0, [2.5], 10.0, is_cancelled=True),
]


def test_percentiles_are_linear_between_ranks() -> None:
    """NumPy's default interpolation."""
    found = percentiles([0.0, 1.0, 2.0, 3.0, 4.0])
    assert found == pytest.approx({"p50": 2.0, "p90": 3.6, "p95": 3.8, "p99": 3.96, "mean": 2.0})
    assert percentiles([]) == {}


def test_throughput_counts_the_tokens_that_came_over_the_whole_time() -> None:
    """From the first request sent to the last end."""
    summary = summarize(ANSWERS, Slo(1.0, 1.0))
    assert (summary["seconds"], summary["generated_tokens"], summary["tokens_per_second"]) == (10.0, 6, 0.6)
    assert (summary["requests"], summary["errors"], summary["cancelled"]) == (4, 1, 1)
    assert summary["requests_per_second"] == pytest.approx(0.3)


def test_waits_are_from_sending_to_the_first_token_and_between_tokens() -> None:
    """Gaps of all answers together; a lone token has none."""
    summary = summarize(ANSWERS, Slo(1.0, 1.0))
    assert summary["first_token"]["p50"] == 0.5
    assert summary["inter_token"]["p50"] == 1.0
    assert summary["inter_token"]["mean"] == pytest.approx(5.5 / 3)


def test_goodput_is_what_met_both_promises() -> None:
    """The second was too slow between tokens; the third failed."""
    assert summarize(ANSWERS, Slo(1.0, 1.0))["goodput"] == pytest.approx(0.2)
    assert summarize(ANSWERS, Slo(0.6, 1.0))["goodput"] == pytest.approx(0.1)
    assert summarize(ANSWERS, Slo(1.0, 4.0))["slo_attainment"] == 0.75


def test_the_table_reads_without_a_single_token() -> None:
    """A server that refuses everything is still reported."""
    text = table(summarize([ANSWERS[2]], Slo(1.0, 1.0)))
    assert "1 errors" in text
    assert "first token" not in text.splitlines()[-1]
