"""docs/performance.md says what the data say."""

from pathlib import Path

from benchmarks.machine import RESULTS
from benchmarks.report import PAGE, page


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
