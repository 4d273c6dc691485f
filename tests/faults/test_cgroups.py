"""Limits of a container: its memory, its CPUs, its processes, and a pause."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cgroups import control_group
from ends import EndingServer
from peregrine_router.launch.thread_limit import TOO_FEW_THREADS
from serving import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.alone]
CHAT = {"messages": [{"role": "user", "content": "once"}], "max_tokens": 2}
HOG = """
import os, sys, time
open("/proc/self/oom_score_adj", "w").write("900")
held = []
while os.path.exists(f"/proc/{sys.argv[1]}"):
    held.append(b"x" * 2**20)
    time.sleep(0.001)
"""
"""A program that takes memory until a process has ended. It is the kernel's second choice: while the
memory of the first is given back, the router would be the largest."""


def test_a_container_without_memory(tmp_path: Path) -> None:
    """The kernel kills the shard, which holds the most: error events, exit code 1, and what to lower."""
    with control_group("memory") as group, EndingServer(tmp_path, via=group.via) as server:
        server.open_streams(2)

        def take_all() -> None:
            # The demo's shard is small: where much of the group's memory is a cache of files, the program grows larger.
            (shard,) = server.shard_pids()
            Path(f"/proc/{shard}/oom_score_adj").write_text("1000")
            group["memory.limit_in_bytes"] = int(group["memory.usage_in_bytes"]) + 32 * 2**20
            subprocess.run([*group.via, sys.executable, "-c", HOG, str(shard)], check=False)

        outcome = server.end(take_all, "cgroup without memory, 2 streams")
    assert (outcome.code, outcome.clients, outcome.left) == (1, ["generation"] * 2, [])
    assert "shard 0 was killed by signal 9: out of memory? Lower --max-batch-total-tokens" in outcome.lines[-1]


def test_a_container_with_a_tenth_of_a_cpu(tmp_path: Path) -> None:
    """All is slow and nothing fails."""
    with control_group("cpu") as group, EndingServer(tmp_path, via=group.via) as server:
        group["cpu.cfs_quota_us"] = int(group["cpu.cfs_period_us"]) // 10
        server.open_streams(2, max_new_tokens=10)
        assert server.is_healthy()
        outcome = server.end(server.send(signal.SIGTERM), "SIGTERM, a tenth of a CPU, 2 streams")
    assert (outcome.code, outcome.clients, outcome.left) == (0, ["whole"] * 2, [])


def test_a_container_that_is_paused(tmp_path: Path) -> None:
    """No shard is to blame, however much longer than --shard-timeout; streams go on, and a stop waits for the end."""
    with control_group("freezer") as group, EndingServer(tmp_path, "--shard-timeout", "1", via=group.via) as server:
        server.open_streams(1, max_new_tokens=100)
        group["freezer.state"] = "FROZEN"
        assert wait_until(lambda: group["freezer.state"] == "FROZEN", 5)
        time.sleep(4)
        server.process.send_signal(signal.SIGTERM)
        outcome = server.end(lambda: group.__setitem__("freezer.state", "THAWED"), "SIGTERM while paused for 4 s")
    assert (outcome.code, outcome.clients, outcome.left) == (0, ["whole"], [])


def test_a_container_that_may_start_no_process(tmp_path: Path) -> None:
    """Chats are answered 503 until there is room again; a start says in one line that there is none."""
    with control_group("pids") as group:
        with EndingServer(tmp_path, via=group.via) as server:
            assert server.client.post("/v1/chat/completions", json=CHAT).status_code == 200
            group["pids.max"] = int(group["pids.current"]) - 1
            os.kill(server.family()[-1], signal.SIGKILL)  # The template's process, which started last.
            answer = server.client.post("/v1/chat/completions", json=CHAT)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "template_process")
            assert server.generate("once", max_new_tokens=2).status_code == 200
            group["pids.max"] = "max"
            time.sleep(1.1)
            assert server.client.post("/v1/chat/completions", json=CHAT).status_code == 200
            outcome = server.end(server.send(signal.SIGTERM), "SIGTERM, no process could start for a while")
        assert (outcome.code, outcome.left) == (0, [])
        group["pids.max"] = 4
        with EndingServer(tmp_path, via=group.via, wait=False) as server:
            outcome = server.end(lambda: None, "start, 4 processes at most")
        assert (outcome.code, outcome.left, outcome.lines) == (1, [], [f"peregrine: {TOO_FEW_THREADS}"])
