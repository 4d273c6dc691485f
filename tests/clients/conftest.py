"""The server that clients are run against, and the record of what each of them can do.

A module of tests names its client: `CLIENT = "instructor"`, a distribution's name. Each test is a feature, named in the
table as its function is: `test_streamed_chat`. One that the client fails by itself is an xfail whose reason says why;
parametrized tests are one feature.
"""

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from clients.server import Server, serve

RESULTS = Path(__file__).resolve().parent / "results"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", help="write what the clients can do to results/NAME.json, if no test fails")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The demo model in float32."""
    with serve("--dtype", "float32") as server:
        yield server


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("record"):
        config.pluginmanager.register(Recorder(RESULTS / f"{config.getoption('record')}.json"))


class Recorder:
    """Writes {client: {"version": str, "features": {feature: null or why the client cannot}}} after a whole run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clients: dict[str, dict[str, Any]] = {}
        self._is_whole = True

    def pytest_deselected(self) -> None:
        self._is_whole = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Function, call: pytest.CallInfo[None]) -> Any:
        report = yield
        if report.when == "call":
            self._add(item.module.CLIENT, item.originalname, getattr(report, "wasxfail", None))
        return report

    def _add(self, client: str, test: str, fault: str | None) -> None:
        entry = self._clients.setdefault(client, {"version": version(client), "features": {}})
        feature = test.removeprefix("test_").replace("_", " ")
        entry["features"][feature] = entry["features"].get(feature) or fault

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if self._is_whole and exitstatus == pytest.ExitCode.OK:
            self._path.write_text(json.dumps(self._clients, indent=2) + "\n")
