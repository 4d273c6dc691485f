"""The steps of the quarter of an hour, in order."""

import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT, SIGSTOP

from scripts.dashboard.build import ROWS
from scripts.dashboard.queries import with_everything_chosen
from scripts.quickstart.deployment import RULES, alertmanager_config, prometheus_config, quick_rules
from scripts.quickstart.prometheus import Alertmanager, Prometheus
from scripts.quickstart.server import Container, Server
from scripts.quickstart.service import StepError, wait_for
from scripts.quickstart.webhook import Webhook

ALERT = "PeregrineUnhealthy"
SHARD_TIMEOUT = "150"
"""Seconds after which the server gives up a silent shard: the alert has to come before, also with the rules as they
are written."""
INTERVAL = "30s"
"""The value of $__rate_interval."""
QUERIES = {
    f"{panel.title}: {query.legend}": (panel.title, with_everything_chosen(query.expr, INTERVAL))
    for panels in ROWS.values()
    for panel in panels
    for query in panel.queries
}
EMPTY = {"Draft tokens": "where nothing is drafted", "Utilization of the roof": "on a device without known peaks"}
"""Panels that may have no data, and when."""
LOAD_SECONDS, SCRAPE_SECONDS, FIRE_SECONDS, START_SECONDS = 60, 30, 120, 300


@dataclass(frozen=True)
class Options:
    """The rehearsal's command line. `image`: none for the checkout; `server`: options of `peregrine serve`."""

    image: str | None
    suite: str
    is_as_written: bool
    server: Sequence[str]


class Rehearsal:
    """One operator with a server, Prometheus and Alertmanager. Each step returns what the operator sees."""

    def __init__(self, options: Options, folder: Path, stack: ExitStack) -> None:
        """`stack`: ends what the steps start."""
        self._options = options
        self._folder = folder
        self._stack = stack
        self._webhook = stack.enter_context(Webhook())
        self.steps: dict[str, Callable[[], str]] = {
            "server up": self._start_server,
            "first token": self._first_token,
            "Prometheus and Alertmanager": self._start_monitoring,
            "dashboard": self._ask_dashboard,
            "shard stopped": self._stop_shard,
            "alert in Alertmanager": self._see_alert,
            "shard continued": self._continue_shard,
            "alert resolved": self._see_resolved,
        }

    def _start_server(self) -> str:
        options = ("--shard-timeout", SHARD_TIMEOUT, *self._options.server)
        image, port, log = self._options.image, _free_port(), self._folder / "server.log"
        server = Container(image, port, options, log) if image else Server(port, options, log)
        self._server = self._stack.enter_context(server)
        wait_for(lambda: server.is_up("/health"), START_SECONDS, "/health is not 200")
        return f"GET /health is 200; {f'the image {image}' if image else 'peregrine serve of this checkout'}"

    def _first_token(self) -> str:
        return f"{self._server.first_text('Who are you?')!r}"

    def _start_monitoring(self) -> str:
        rules = RULES if self._options.is_as_written else quick_rules(self._folder)
        config, ports = alertmanager_config(self._webhook.url), (_free_port(), _free_port())
        addresses = [f"127.0.0.1:{port}" for port in (self._server.port, ports[0])]
        suite, folder, enter = self._options.suite, self._folder, self._stack.enter_context
        self._alertmanager = enter(Alertmanager(suite, folder, config, ports[0]))
        self._prometheus = enter(Prometheus(suite, folder, prometheus_config(rules, *addresses), ports[1]))
        for service in (self._alertmanager, self._prometheus):
            wait_for(lambda: service.is_up("/-/ready"), SCRAPE_SECONDS, "it is not ready")  # noqa: B023
        wait_for(lambda: self._prometheus.values("up") == [1.0], SCRAPE_SECONDS, "the server is not scraped")
        return f"the server is scraped; {self._rules()}"

    def _rules(self) -> str:
        """The rules that Prometheus evaluates. Raises StepError where one of them fails."""
        wait_for(lambda: "unknown" not in self._health().values(), SCRAPE_SECONDS, "not every rule is evaluated")
        if failed := [name for name, health in self._health().items() if health != "ok"]:
            raise StepError(f"rules fail: {', '.join(failed)}")
        return f"{len(self._health())} rules are evaluated"

    def _health(self) -> dict[str, str]:
        groups = self._prometheus.get("/rules")["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    def _ask_dashboard(self) -> str:
        missing = dict(QUERIES)

        def is_complete() -> bool:
            self._ask()
            for name in [name for name, (_, expr) in missing.items() if self._prometheus.values(expr)]:
                del missing[name]
            return {panel for panel, _ in missing.values()} <= EMPTY.keys()

        wait_for(is_complete, LOAD_SECONDS, lambda: f"no data: {', '.join(missing)}")
        empty = {panel: EMPTY[panel] for panel, _ in missing.values()}
        details = "; ".join(f"{panel} is empty {why}" for panel, why in empty.items())
        return f"{len(QUERIES) - len(missing)} of {len(QUERIES)} queries return data. {details}".rstrip()

    def _ask(self) -> None:
        """An answer, a chat, and a request that is refused."""
        for parameters in ({"max_new_tokens": 16}, {"temperature": -1.0}):
            self._server.client.post("/generate", json={"inputs": "It was a fine morning", "parameters": parameters})
        message = {"role": "user", "content": "Who are you?"}
        self._server.client.post("/v1/chat/completions", json={"messages": [message], "max_tokens": 8})

    def _stop_shard(self) -> str:
        if ALERT in self._alertmanager.active():
            raise StepError(f"{ALERT} fires before the shard is stopped")
        self._server.signal_shards(SIGSTOP)
        wait_for(lambda: not self._server.is_up("/health"), 10, "/health is still 200")
        return "SIGSTOP; GET /health is 503"

    def _see_alert(self) -> str:
        wait_for(lambda: ALERT in self._alertmanager.active(), FIRE_SECONDS, f"{ALERT} does not fire")
        wait_for(lambda: (ALERT, "firing") in self._webhook.received, SCRAPE_SECONDS, "the webhook was not called")
        return f"{', '.join(sorted(self._alertmanager.active()))}; the webhook was called"

    def _continue_shard(self) -> str:
        self._server.signal_shards(SIGCONT)
        wait_for(lambda: self._server.is_up("/health"), 10, "/health is not 200")
        return f"SIGCONT; GET /health is 200, and a token comes: {self._first_token()}"

    def _see_resolved(self) -> str:
        wait_for(lambda: ALERT not in self._alertmanager.active(), FIRE_SECONDS, f"{ALERT} still fires")
        wait_for(lambda: (ALERT, "resolved") in self._webhook.received, SCRAPE_SECONDS, "the webhook was not told")
        return "no alert fires; the webhook was told"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
