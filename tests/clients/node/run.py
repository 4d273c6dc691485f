"""The Node clients' tests against a server with the demo model: PYTHONPATH=tests python tests/clients/node/run.py."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from clients.server import KEY, MODEL, Server, serve

HERE = Path(__file__).parent
RECORD = HERE.parent / "results/node.json"
TEST = ("node", "--test", "--test-concurrency=1", "--test-reporter=spec", "--test-reporter-destination=stdout")


def run(server: Server, arguments: list[str]) -> int:
    """Runs the tests; records what the clients can do if all were run and none failed. Returns the exit status."""
    environment = os.environ | {"PEREGRINE_URL": server.url, "PEREGRINE_API_KEY": KEY, "PEREGRINE_MODEL": MODEL}
    with tempfile.NamedTemporaryFile("r") as record:
        reporter = ("--test-reporter=./record.js", f"--test-reporter-destination={record.name}")
        done = subprocess.run([*TEST, *reporter, *arguments], cwd=HERE, env=environment, check=False)
        if not arguments and (text := record.read()):
            RECORD.write_text(text)
    return done.returncode


if __name__ == "__main__":
    with serve("--dtype", "float32") as server:
        sys.exit(run(server, sys.argv[1:]))
