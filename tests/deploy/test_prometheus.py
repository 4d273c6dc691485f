"""A real Prometheus scrapes a running server under load: queries of dashboard and rules return data."""

import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from sys import executable
from typing import Any

import httpx
import pytest
import yaml
from scripts.dashboard.build import ROWS
from scripts.dashboard.queries import with_everything_chosen

from prometheus_process import SUITES, Prometheus, program, promtool
from serving import ServerProcess, wait_until
from watched_serve import TRACE_ID

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules.yaml"
QUERIES = {
    f"{panel.title}: {query.legend}": query for panels in ROWS.values() for panel in panels for query in panel.queries
}
ALL_RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
INTERVAL = "30s"
"""The value of $__rate_interval; the server is scraped each second."""
NUM_SCRAPES = 8
KEYS = ("first-key", "second-key")
PROMPT = "It was a fine morning, and the falcon, and the falcon, and the falcon"

pytestmark = pytest.mark.slow
by_suite = pytest.mark.parametrize("suite", SUITES)


class WatchedServer(ServerProcess):
    """The demo model, with peaks and traces."""

    program = (executable, str(ROOT / "tests/watched_serve.py"))


@pytest.fixture(scope="module")
def served() -> Iterator[ServerProcess]:
    """A server with two API keys, speculation, and a cache so small that it evicts."""
    for suite in SUITES:
        program(suite, "prometheus")
    options = ("--speculate", "4", "--max-batch-total-tokens", "4096", "--max-total-tokens", "512")
    with WatchedServer(*options, *(f"--api-key={key}" for key in KEYS), stderr=subprocess.DEVNULL) as server:
        server.client.headers["authorization"] = f"Bearer {KEYS[0]}"
        yield server


@pytest.fixture(scope="module")
def prometheus(served: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[Prometheus]]:
    """Both versions, which have watched the server under load."""
    folder, target = tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{served.port}"
    with ExitStack() as stack:
        both = [stack.enter_context(Prometheus(suite, folder, target, KEYS[1], RULES)) for suite in SUITES]
        stack.enter_context(Load(served.port))
        for each in both:
            each.wait_for_scrapes(NUM_SCRAPES, 60)
        yield both


class Load:
    """Clients that ask again and again, of which one in four is refused."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(4)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        headers = {"authorization": f"Bearer {KEYS[number % 2]}"}
        with httpx.Client(base_url=self._url, headers=headers, timeout=60) as client:
            while not self._is_over.wait(0.02):
                parameters = {"max_new_tokens": 24, **({"temperature": -1.0} if number == 3 else {})}
                client.post("/generate", json={"inputs": f"{number} {PROMPT}", "parameters": parameters})
                message = {"role": "user", "content": "Who are you?"}
                client.post("/v1/chat/completions", json={"messages": [message], "max_tokens": 8})


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_of_the_dashboard_returns_data(prometheus: Sequence[Prometheus], name: str) -> None:
    """No panel says "No data", under either version of Prometheus, and none divides by zero under load."""
    query = with_everything_chosen(QUERIES[name].expr, INTERVAL)
    for each in prometheus:
        # There may be no draft, or no failure, for a while.
        assert wait_until(lambda: bool(each.values(query)), 20), f"{each.version}: {query}"  # noqa: B023


def test_every_rule_is_evaluated(prometheus: Sequence[Prometheus]) -> None:
    """Without an error; recording rules return series, and the metrics of alerts exist."""
    for each in prometheus:
        evaluated = [rule for group in each.get("/rules")["groups"] for rule in group["rules"]]
        assert {rule["name"] for rule in evaluated} == {rule.get("record") or rule["alert"] for rule in ALL_RULES}
        assert {rule["health"] for rule in evaluated} == {"ok"}, each.version
        for rule in ALL_RULES:
            metrics = [rule["record"]] if "record" in rule else metrics_of(rule["expr"])
            assert metrics
            for metric in metrics:
                assert each.values(metric), f"{each.version}: {metric} of {rule}"


def test_no_alert_fires_under_an_ordinary_load(prometheus: Sequence[Prometheus]) -> None:
    """Alerts that are always there are read by nobody."""
    for each in prometheus:
        assert not [alert for alert in each.get("/alerts")["alerts"] if alert["state"] == "firing"]


def test_openmetrics_is_what_is_scraped(prometheus: Sequence[Prometheus]) -> None:
    """TGI's counters have their names and, in that format, no type; the scrape itself is without error."""
    for each in prometheus:
        assert each.get("/metadata", metric="tgi_request_count")["tgi_request_count"][0]["type"] == "unknown"
        assert [target["lastError"] for target in each.get("/targets")["activeTargets"]] == [""]


def test_first_tokens_lead_to_traces(prometheus: Sequence[Prometheus]) -> None:
    """Prometheus keeps the trace ids of the requests as exemplars of the histogram's series."""
    for each in prometheus:
        query = "gen_ai_server_time_to_first_token_seconds_bucket"
        found = each.get("/query_exemplars", query=query, start=str(time.time() - 600), end=str(time.time()))
        assert {exemplar["labels"]["trace_id"] for series in found for exemplar in series["exemplars"]} == {TRACE_ID}


@by_suite
def test_promtool_finds_only_names_of_tgi(served: ServerProcess, suite: str) -> None:
    """`promtool check metrics` of a real page complains about names that are TGI's, and nothing else."""
    found = promtool(suite, "check", "metrics", stdin=served.client.get("/metrics").text)
    lines = (found.stdout + found.stderr).splitlines()
    assert lines
    assert all(line.startswith("tgi_") for line in lines), lines


@by_suite
def test_the_rules_pass_their_own_tests(suite: str) -> None:
    """`promtool check rules` and `test rules`: every alert fires when it should, and not otherwise."""
    assert promtool(suite, "--version").stdout.startswith(f"promtool, version {SUITES[suite]}")
    checked = promtool(suite, "check", "rules", str(RULES))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = promtool(suite, "test", "rules", str(RULES.with_name("rules_test.yaml")))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_rule_has_a_unit_test() -> None:
    """promtool's tests name every alert and every recorded series but for the windows."""
    text = RULES.with_name("rules_test.yaml").read_text()
    for rule in ALL_RULES:
        name = rule.get("alert") or rule["record"].rpartition("_rate")[0]
        assert name in text, name


def metrics_of(expr: str) -> list[str]:
    """The metrics that an alert's expression reads."""
    return re.findall(r"\b(?:job:|instance:|peregrine_|tgi_|process_|gen_ai_)\w*(?::\w+)*", expr)
