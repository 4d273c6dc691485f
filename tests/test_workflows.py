"""The workflows of GitHub, which only GitHub can run: what they name is there."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def commands(workflow: Path) -> list[str]:
    """Every line that a step runs."""
    jobs: dict[str, Any] = yaml.safe_load(workflow.read_text())["jobs"]
    return [line for job in jobs.values() for step in job["steps"] for line in step.get("run", "").splitlines()]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_target_and_script_exists(workflow: Path) -> None:
    """`make X` has a rule, and a script can be executed."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = commands(workflow)
    assert lines
    for line in lines:
        if line.startswith("make "):
            assert set(re.sub(r'ARGS=".*"', "", line).split()[1:]) <= targets, line
        for script in re.findall(r"scripts/[\w/]+\.sh", line):
            assert (ROOT / script).stat().st_mode & 0o111, script


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_no_job_may_do_more_than_it_says(workflow: Path) -> None:
    """By default a workflow reads; a job that signs or publishes asks for that."""
    assert yaml.safe_load(workflow.read_text())["permissions"] == {"contents": "read"}
