"""The table of clients in docs/compatibility.md, written from tests/clients/results: python -m tests.clients.table."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/compatibility.md"
HEAD = "| client | version | does | does not |\n|---|---|---|---|\n"
_TABLE = re.compile(re.escape(HEAD) + r"(\|.*\n)*")


def table() -> str:
    """A row for each client, in the order of the names."""
    clients = results()
    return HEAD + "".join(_row(name, **clients[name]) for name in sorted(clients, key=str.lower))


def results() -> dict[str, Any]:
    """Each client's version and features."""
    files = (ROOT / "tests/clients/results").glob("*.json")
    return {name: entry for file in files for name, entry in json.loads(file.read_text()).items()}


def with_table(page: str) -> str:
    """The page with its table made anew; ValueError if it has none."""
    if not _TABLE.search(page):
        raise ValueError(f"{PAGE.name} has no table that begins with {HEAD}")
    return _TABLE.sub(lambda _: table(), page)


def _row(name: str, version: str, features: dict[str, str | None]) -> str:
    does = ", ".join(feature for feature, fault in features.items() if fault is None)
    does_not = "; ".join(f"{feature}: {fault}" for feature, fault in features.items() if fault is not None)
    return f"| {name} | {version} | {does} | {does_not} |\n"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
