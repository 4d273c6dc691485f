"""A thousand streams on one core, the real app and a client over sockets; only the shards are a fake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.alone]

ROOT = Path(__file__).parents[3]
EVENTS, STREAMS, LOADS = 20, 1000, 13
CLIENT = f"""
import json
from benchmarks.router import request, router_server
from benchmarks.streams import run
with router_server({STREAMS}, {EVENTS}) as router:
    for _ in range({LOADS}):
        load = run(router.port, request({EVENTS}), {STREAMS}, {EVENTS})
        print(json.dumps([load.num_failed, load.num_events, router.process.memory_info().rss]), flush=True)
"""


def test_a_thousand_streams_at_once() -> None:
    """Every stream gets all of its events, and thousands of requests more leave the server's memory as it is."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", CLIENT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loads = [json.loads(line) for line in done.stdout.splitlines()]
    assert [load[:2] for load in loads] == [[0, STREAMS * EVENTS]] * LOADS
    # The prefix cache is full after two loads, the allocator has what it needs after four to eight; 2 KB kept of each
    # request would be seen.
    assert loads[-1][2] < 1.05 * loads[8][2]
