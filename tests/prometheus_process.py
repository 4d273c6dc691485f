"""Debian's Prometheus and promtool in tests, which are skipped where scripts/prometheus.sh did not unpack them."""

import subprocess
from pathlib import Path

import pytest
from scripts.quickstart import prometheus
from scripts.quickstart.deployment import prometheus_config

from serving import free_port, wait_until

SUITES = {"bookworm": "2.42", "forky": "3."}
"""Debian's suite -> the beginning of its version."""


def program(suite: str, name: str) -> str:
    """The path of one of the programs. Skips the test where they were not unpacked."""
    try:
        return str(prometheus.program(suite, name))
    except FileNotFoundError as error:
        pytest.skip(str(error))


def promtool(suite: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The answer of promtool to a command."""
    command = [program(suite, "promtool"), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)


class Prometheus(prometheus.Prometheus):
    """A server that scrapes one target each second, and knows no Alertmanager."""

    def __init__(self, suite: str, folder: Path, target: str, key: str, rules: Path) -> None:
        """`folder`: for its configuration and data. `key`: the target's API key."""
        self.version = SUITES[suite]
        config = prometheus_config(rules, target)
        config["scrape_configs"][0]["authorization"] = {"credentials": key}
        super().__init__(suite, folder, config, free_port())

    def wait_for_scrapes(self, count: int, seconds: float) -> None:
        """Waits until the target was scraped that often."""
        query = f"count_over_time(peregrine_healthy[1h]) >= {count}"
        assert wait_until(lambda: bool(self.query(query)), seconds), "the server is not scraped"
