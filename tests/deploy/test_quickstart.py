"""A new operator's quarter of an hour works on this checkout, and its page says what the script does."""

import re
import subprocess
from pathlib import Path
from sys import executable

import pytest
import yaml
from scripts.quickstart.deployment import RULES, alertmanager_config, quick_rules
from scripts.quickstart.rehearsal import ALERT, EMPTY, QUERIES, SHARD_TIMEOUT
from scripts.quickstart.server import SHARDS

from prometheus_process import SUITES, program

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations/quickstart.md").read_text()
STEPS = (
    "server up",
    "first token",
    "Prometheus and Alertmanager",
    "dashboard",
    "shard stopped",
    "alert in Alertmanager",
    "shard continued",
    "alert resolved",
)


def rehearse(*options: str) -> subprocess.CompletedProcess[str]:
    """The script's end."""
    command = [executable, "-m", "scripts.quickstart", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.slow
def test_the_quarter_of_an_hour() -> None:
    """Every step shows what it should: the alert fires once the shard is stopped, and is resolved."""
    program("forky", "prometheus-alertmanager")
    done = rehearse()
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^ *[\d.]+ s  ([^:]+):", done.stdout, re.MULTILINE) == list(STEPS)
    assert f"alert in Alertmanager: {ALERT};" in done.stdout


@pytest.mark.slow
def test_a_step_that_fails_ends_it() -> None:
    """With exit code 1, the step's name and the server's last line."""
    done = rehearse("--model-id", "/nowhere")
    assert done.returncode == 1
    assert re.search(r"server up FAILED: it ended with exit code \d: .*/nowhere", done.stdout, re.DOTALL), done.stdout


def test_only_the_times_of_the_rules_are_shortened(tmp_path: Path) -> None:
    """Names, expressions and labels are those of the deployed file."""
    quick, deployed = (yaml.safe_load(path.read_text()) for path in (quick_rules(tmp_path), RULES))
    for rules in (quick, deployed):
        for group in rules["groups"]:
            for rule in group["rules"]:
                rule.pop("for", None)
    assert quick == deployed


@pytest.mark.parametrize("suite", SUITES)
def test_alertmanager_takes_the_deployed_file(suite: str) -> None:
    """`amtool check-config` finds its receiver."""
    file = ROOT / "deploy/alertmanager/alertmanager.yml"
    command = [program(suite, "amtool"), "check-config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " - 1 receivers" in done.stdout


def test_the_webhook_alone_is_the_rehearsals() -> None:
    """One receiver, which every alert reaches."""
    config = alertmanager_config("http://127.0.0.1:1/")
    (receiver,) = config["receivers"]
    assert receiver["name"] == config["route"]["receiver"]
    assert [each["url"] for each in receiver["webhook_configs"]] == ["http://127.0.0.1:1/"]


def test_the_page_says_what_the_script_does() -> None:
    """Its command that stops the shards, the option, the alert, the panels that stay empty."""
    for word in (SHARDS, f"--shard-timeout {SHARD_TIMEOUT}", ALERT, *EMPTY):
        assert word in PAGE, word


def test_panels_that_may_be_empty_exist() -> None:
    """By their titles."""
    assert EMPTY.keys() <= {panel for panel, _ in QUERIES.values()}
