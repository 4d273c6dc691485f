"""Needs of a server that are not met: room, descriptors, a port, a reader of its log, its chat template's process."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ends import EndingServer, descendants
from serving import is_alive, occupied_port, wait_until

pytestmark = pytest.mark.slow
CHAT = {"messages": [{"role": "user", "content": "once"}], "max_tokens": 2}


@contextlib.contextmanager
def small_disk(path: Path, *options: str) -> Iterator[Path]:
    """A file system of a few pages."""
    path.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", path], check=False).returncode:
        pytest.skip("only root mounts file systems")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def template_worker(server: EndingServer) -> int:
    """The process that renders chat templates, which starts with the first chat."""
    command = "peregrine_router.text.template_worker"
    pids = [pid for pid in server.family() if command in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(pids) == 1
    return pids[0]


@pytest.mark.parametrize("option", ["size=4k", "nr_inodes=2"])
def test_a_full_temporary_folder_is_left_alone(option: str, tmp_path: Path) -> None:
    """No byte, or no file: sockets are where there is room, as Python's temporary files are."""
    with small_disk(tmp_path / "tmp", option) as disk:
        with contextlib.suppress(OSError):
            (disk / "full").write_bytes(bytes(2**16))
        with EndingServer(tmp_path, "--num-shard", "2") as server:
            server.open_streams(2, max_new_tokens=50)
            outcome = server.end(server.send(signal.SIGTERM), f"SIGTERM, TMPDIR full ({option})")
    assert (outcome.code, outcome.clients) == (0, ["whole"] * 2)
    assert outcome.left in ([], [str(tmp_path / "tmp" / "full")])


@pytest.mark.parametrize("sink", ["/dev/full", "closed pipe", "full pipe"])
def test_a_log_that_cannot_be_written_harms_nobody(sink: str, tmp_path: Path) -> None:
    """A disk that is full, a reader that is gone, one that does not read: requests are served, and signals heard."""
    reader, writer = (os.open(os.devnull, os.O_RDONLY), os.open(sink, os.O_WRONLY)) if "/" in sink else os.pipe()
    if sink == "closed pipe":
        os.close(reader)
    if sink == "full pipe":
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(2**16))
        os.set_blocking(writer, True)
    with EndingServer(tmp_path, stderr=writer) as server:
        os.close(writer)
        for _ in range(20):
            assert server.generate("once", max_new_tokens=1).status_code == 200
        dropped = server.metric("peregrine_log_lines_dropped_total")
        assert (dropped > 20) == (sink != "full pipe")
        server.open_streams(2, max_new_tokens=50)
        outcome = server.end(server.send(signal.SIGTERM), f"SIGTERM, stderr is {sink}")
    assert (outcome.code, outcome.clients, outcome.left) == (0, ["whole"] * 2, [])


def test_too_few_descriptors_end_no_server(tmp_path: Path) -> None:
    """More connections than `ulimit -n` allows wait; when they are gone, the server answers as before."""
    with EndingServer(tmp_path, wait=False) as server:
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (64, 64))
        server.wait_ready()
        connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(150)]
        time.sleep(1)
        for connection in connections:
            connection.close()
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
            assert wait_until(lambda: client.post("/generate", json={"inputs": "once"}).status_code == 200, 10)
        outcome = server.end(server.send(signal.SIGTERM), "150 connections under ulimit -n 64")
    assert (outcome.code, outcome.left) == (0, [])


def test_far_too_few_descriptors_are_said(tmp_path: Path) -> None:
    """A start that cannot open its files ends with one line and exit code 1."""
    with EndingServer(tmp_path, wait=False) as server:
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (16, 16))
        outcome = server.end(lambda: None, "ulimit -n 16")
    assert (outcome.code, outcome.left) == (1, [])
    assert len(outcome.lines) == 1


def test_a_used_port(tmp_path: Path) -> None:
    """It is said before the model loads."""
    with occupied_port() as port, EndingServer(tmp_path, "--port", str(port), wait=False) as server:
        outcome = server.end(lambda: None, "port in use")
    assert (outcome.code, outcome.left) == (1, [])
    assert outcome.lines == [f"peregrine: port {port} is in use: stop what listens there, or choose another --port"]
    assert "loading" not in server.said


def test_an_idle_template_process_that_is_killed(tmp_path: Path) -> None:
    """No chat fails."""
    with EndingServer(tmp_path) as server:
        for _ in range(3):
            assert server.client.post("/v1/chat/completions", json=CHAT).status_code == 200
            os.kill(template_worker(server), signal.SIGKILL)
        assert server.client.post("/v1/chat/completions", json=CHAT).status_code == 200
        outcome = server.end(server.send(signal.SIGTERM), "template process SIGKILL, idle; then SIGTERM")
    assert (outcome.code, outcome.left) == (0, [])


def test_a_stopped_template_process(tmp_path: Path) -> None:
    """The chat that waits for it ends in time, and the next has another."""
    with EndingServer(tmp_path) as server:
        assert server.client.post("/v1/chat/completions", json=CHAT).status_code == 200
        stopped = template_worker(server)
        os.kill(stopped, signal.SIGSTOP)
        assert server.client.post("/v1/chat/completions", json=CHAT).status_code == 400
        assert not is_alive(stopped)
        assert server.client.post("/v1/chat/completions", json=CHAT).status_code == 200
        outcome = server.end(server.send(signal.SIGTERM), "template process SIGSTOP, a chat; then SIGTERM")
    assert (outcome.code, outcome.left) == (0, [])


def test_a_killed_router_leaves_no_template_that_loops(tmp_path: Path) -> None:
    """It reads no input while it loops, so the kernel ends it."""
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": loop}))
    with EndingServer(tmp_path, "--tokenizer-config-path", str(config)) as server:
        code = f"import httpx; httpx.post('http://127.0.0.1:{server.port}/v1/chat/completions', json={CHAT})"
        client = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        assert wait_until(lambda: len(descendants(server.process.pid)) == 3, 20)
        outcome = server.end(server.send(signal.SIGKILL), "router SIGKILL, a template loops")
        client.wait()
    assert outcome.left == []
