"""The image in the hands of a new operator."""

import subprocess
from pathlib import Path
from sys import executable

from containers import CPU_IMAGE
from prometheus_process import program

ROOT = Path(__file__).parents[2]


def test_the_quarter_of_an_hour_with_the_image() -> None:
    """Its shard is stopped from within, as the page says; the alert fires and is resolved, no container is left."""
    program("forky", "prometheus-alertmanager")
    command = [executable, "-m", "scripts.quickstart", "--image", CPU_IMAGE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
