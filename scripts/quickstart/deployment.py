"""The files of deploy/ with the addresses and the times of a rehearsal."""

import json
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/rules.yaml"
HOLD = "2s"
"""How long a condition holds before its alert fires, in place of each `for:`."""
PAUSE = "1s"
"""Alertmanager's wait before it tells of a group, in place of `group_wait` and `group_interval`."""


def quick_rules(folder: Path) -> Path:
    """A copy of the rules that differs in its `for:` alone."""
    content = yaml.safe_load(RULES.read_text())
    for rule in (rule for group in content["groups"] for rule in group["rules"]):
        if "for" in rule:
            rule["for"] = HOLD
    path = folder / "rules.yaml"
    path.write_text(json.dumps(content))
    return path


def prometheus_config(rules: Path, server: str, *alertmanagers: str) -> dict[str, Any]:
    """deploy/prometheus/prometheus.yml for these addresses, with a scrape each second."""
    config: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(rules)]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [server]}]
    config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": list(alertmanagers)}]
    return config


def alertmanager_config(webhook: str) -> dict[str, Any]:
    """deploy/alertmanager/alertmanager.yml with the address of a webhook."""
    config: dict[str, Any] = yaml.safe_load((DEPLOY / "alertmanager/alertmanager.yml").read_text())
    config["route"] |= {"group_wait": PAUSE, "group_interval": PAUSE}
    config["receivers"][0]["webhook_configs"][0]["url"] = webhook
    return config
