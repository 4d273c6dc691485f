"""Debian's Prometheus and Alertmanager, as scripts/prometheus.sh unpacks them."""

import json
import os
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import httpx
from scripts.quickstart.service import Service

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
FOLDER = Path(os.environ.get("PEREGRINE_PROMETHEUS") or _CACHE / "peregrine" / "prometheus")
_TEMPLATES = Path("/usr/share/prometheus/alertmanager/default.tmpl")
"""Debian's Alertmanager reads its templates here and does not start without them."""


def program(suite: str, name: str) -> Path:
    """The path of a program of Debian's `suite`. Raises FileNotFoundError, which says how to get it."""
    path = FOLDER / suite / "usr/bin" / name
    if not path.exists():
        raise FileNotFoundError(f"needs {path}: run scripts/prometheus.sh {FOLDER}")
    return path


class Prometheus(Service):
    """A Prometheus with its data in a folder."""

    def __init__(self, suite: str, folder: Path, config: Mapping[str, Any], port: int) -> None:
        path = folder / f"prometheus-{suite}.yml"
        path.write_text(json.dumps(config))
        command = [
            str(program(suite, "prometheus")),
            f"--config.file={path}",
            f"--storage.tsdb.path={folder / suite}",
            f"--web.listen-address=127.0.0.1:{port}",
            # What fires before Alertmanager is known, 5 s after the start, is sent again after this.
            "--rules.alert.resend-delay=2s",
            "--enable-feature=exemplar-storage",
            "--log.level=error",
        ]
        super().__init__(command, port, folder / f"prometheus-{suite}.log")

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series that a query returns at this moment; none while Prometheus starts."""
        try:
            answer = self.client.get("/api/v1/query", params={"query": expr})
        except httpx.TransportError:
            return []
        if answer.status_code == 503:
            return []
        assert answer.status_code == 200, f"{expr}: {answer.text}"
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result

    def values(self, expr: str) -> list[float]:
        """The values of a query's series, but those that are not a number."""
        return [value for series in self.query(expr) if isfinite(value := float(series["value"][1]))]

    def get(self, path: str, **parameters: str) -> Any:
        """The data that another route answers."""
        return self.client.get(f"/api/v1{path}", params=parameters).raise_for_status().json()["data"]


class Alertmanager(Service):
    """An Alertmanager without a cluster."""

    def __init__(self, suite: str, folder: Path, config: Mapping[str, Any], port: int) -> None:
        path = folder / "alertmanager.yml"
        path.write_text(json.dumps(config))
        command = [
            *_beside_its_templates(suite),
            str(program(suite, "prometheus-alertmanager")),
            f"--config.file={path}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ]
        super().__init__(command, port, folder / "alertmanager.log")

    def active(self) -> set[str]:
        """The names of the alerts that fire."""
        alerts = self.client.get("/api/v2/alerts", params={"active": "true"}).raise_for_status().json()
        return {alert["labels"]["alertname"] for alert in alerts}


def _beside_its_templates(suite: str) -> Sequence[str]:
    """The beginning of a command that sees the unpacked templates at their place, in a mount namespace of its own."""
    if _TEMPLATES.exists():
        return ()
    script = 'mount --bind "$0" /usr/share && exec "$@"'
    return ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(FOLDER / suite / "usr/share"))
