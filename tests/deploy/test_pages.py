"""docs/operations says what the server exposes and what the rules alert on."""

import re
from pathlib import Path

import yaml
from scripts.series import PAGE, with_table

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "docs/operations/alerts.md"
RULES = yaml.safe_load((ROOT / "deploy/prometheus/rules.yaml").read_text())


def test_the_table_of_series_is_the_servers() -> None:
    """After a change of the metrics: python -m scripts.series."""
    assert PAGE.read_text() == with_table(PAGE.read_text())


def test_every_alert_has_its_runbook() -> None:
    """A section of its own, which `runbook_url` names; no section is left of an alert that is gone."""
    alerts = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
    assert re.findall(r"^## (\w+)$", ALERTS.read_text(), re.MULTILINE) == [rule["alert"] for rule in alerts]
    for rule in alerts:
        assert rule["annotations"]["runbook_url"] == f"docs/operations/alerts.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("critical", "warning")
