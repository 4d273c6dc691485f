"""docs/performance.md agrees with the data."""

from pathlib import Path

from benchmarks.machine import RESULTS
from benchmarks.report import PAGE, page, speculated


def test_the_committed_page_is_what_the_committed_data_make() -> None:
    """Nobody edits a figure by hand; `make performance` after new data."""
    assert PAGE.read_text() == page(RESULTS)


def test_what_was_not_measured_is_not_mentioned(tmp_path: Path) -> None:
    """No empty tables."""
    assert "##" not in page(tmp_path)


def test_every_chart_of_the_page_is_there() -> None:
    """Links are relative to the page."""
    for line in PAGE.read_text().splitlines():
        if line.startswith("!["):
            assert (PAGE.parent / line.partition("](")[2].rstrip(")")).exists()


def test_speculation_of_a_model_that_was_not_measured() -> None:
    """The page shows the measured model, and says that the other was not measured."""
    entry = {"text": "misleads", "streams": 8, "ratios": [0.9, 1.0, 1.1], "draft_tokens": 1200, "accepted_tokens": 3}
    machine = {"cpu": "a CPU", "cores": 2, "commit": "0123456789abcdef"}
    lines = speculated({"demo": {"machine": machine, "entries": [entry]}}).splitlines()
    assert "| misleads | 8 | 1.00 [0.90-1.10] | 0.90-1.10 | 3 of 1,200 |" in lines
    assert "The seeded 1.15 B Falcon, bfloat16: not measured." in lines
