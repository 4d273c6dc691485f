"""The record of what published clients can do: its versions, and its table in docs/compatibility.md."""

from pathlib import Path

from packaging.utils import canonicalize_name

from clients.table import PAGE, results, with_table

PINS = Path(__file__).parents[1] / "requirements/clients"


def test_the_page_shows_the_results() -> None:
    """Otherwise: python -m tests.clients.table."""
    page = PAGE.read_text()
    assert with_table(page) == page


def test_the_results_are_of_the_versions_that_are_pinned() -> None:
    """After make lock the clients have to be run again: make test-clients."""
    lines = [line for file in PINS.glob("*.txt") for line in file.read_text().splitlines()]
    pinned = {(canonicalize_name(name), rest.split()[0]) for name, _, rest in (line.partition("==") for line in lines)}
    names = {name for name, _ in pinned}
    ran = {(canonicalize_name(name), entry["version"]) for name, entry in results().items()}
    assert {pin for pin in ran if pin[0] in names} <= pinned
