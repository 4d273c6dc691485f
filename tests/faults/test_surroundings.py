"""A server's surroundings change while it serves: files go, the clock jumps, shared memory is full, nobody listens."""

import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ends import EndingServer, descendants
from peregrine_router.launch.model_files import demo_path

pytestmark = pytest.mark.slow
CHAT = {"messages": [{"role": "user", "content": "once"}], "max_tokens": 2}
GRAMMAR = {"grammar": {"type": "regex", "value": "[a-z]+"}, "max_new_tokens": 4}


def test_files_that_go_while_it_serves(tmp_path: Path) -> None:
    """The model's folder, the file of keys and the sockets' folder are needed no more: all kinds of requests go on."""
    model, keys = tmp_path / "model", tmp_path / "keys"
    shutil.copytree(demo_path(), model)
    keys.write_text("secret\n")
    with EndingServer(tmp_path, "--model-id", str(model), "--api-key-file", str(keys)) as server:
        server.client.headers["authorization"] = "Bearer secret"
        shutil.rmtree(model)
        keys.unlink()
        shutil.rmtree(server.tmpdir)
        server.tmpdir.mkdir()
        time.sleep(1.1)  # The keys are looked for every second.
        for _ in range(2):
            assert server.generate("once", **GRAMMAR).status_code == 200
            assert server.client.post("/v1/chat/completions", json=CHAT).status_code == 200
        assert server.client.get("/health").status_code == 200
        outcome = server.end(server.send(signal.SIGTERM), "SIGTERM; model, keys and TMPDIR were deleted")
    assert (outcome.code, outcome.left) == (0, [])
    assert "Traceback" not in server.said


def test_a_clock_that_jumps(tmp_path: Path) -> None:
    """A day back and a year ahead, as when a time server is found: nothing is late, and no shard is silent."""
    shim, offset = tmp_path / "clock.so", tmp_path / "offset"
    source = Path(__file__).with_name("skewed_clock.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", shim, source], check=True)
    offset.write_bytes(bytes(8))
    env = {"LD_PRELOAD": str(shim), "CLOCK_OFFSET": str(offset)}
    with EndingServer(tmp_path, "--shard-timeout", "3", "--max-request-timeout", "60", env=env) as server:
        server.open_streams(2, max_new_tokens=300)
        for days in (-1, 365):
            with offset.open("r+b") as file:
                file.write((days * 86400).to_bytes(8, "little", signed=True))
            answer = server.client.post("/v1/chat/completions", json=CHAT)
            assert abs(answer.json()["created"] - time.time() - days * 86400) < 60
            assert server.is_healthy()
        outcome = server.end(server.send(signal.SIGTERM), "SIGTERM; the clock jumped by -1 and 365 days, 2 streams")
    assert (outcome.code, outcome.clients, outcome.left) == (0, ["whole"] * 2, [])


def test_closed_files_and_no_shared_memory(tmp_path: Path) -> None:
    """Standard input and output are closed, and /dev/shm has no byte: two shards work together all the same."""
    script = 'mount -t tmpfs -o size=4k tmpfs /dev/shm && head -c 4096 /dev/zero >/dev/shm/full; exec "$0" "$@" <&- >&-'
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("only root has a file system of its own")
    via = ("unshare", "-m", "sh", "-c", script)
    with EndingServer(tmp_path, "--num-shard", "2", via=via) as server:
        server.open_streams(2, max_new_tokens=50)
        assert server.client.post("/v1/chat/completions", json=CHAT).status_code == 200
        outcome = server.end(server.send(signal.SIGTERM), "SIGTERM; stdin, stdout closed, /dev/shm full, two shards")
    assert (outcome.code, outcome.clients, outcome.left) == (0, ["whole"] * 2, [])


def test_a_template_process_that_is_killed_while_it_renders(tmp_path: Path) -> None:
    """The chat is rendered by the next one; then the router's own time on the CPU is over, and nothing is left."""
    with EndingServer(tmp_path) as server:
        assert server.client.post("/v1/chat/completions", json=CHAT).status_code == 200
        worker = descendants(server.process.pid)[-1]
        os.kill(worker, signal.SIGSTOP)
        code = f"sleep 0.5; kill -9 {worker}"
        with subprocess.Popen(["sh", "-c", code]):
            assert server.client.post("/v1/chat/completions", json=CHAT).status_code == 200

        def limit() -> None:
            resource.prlimit(server.process.pid, resource.RLIMIT_CPU, (1, 1))

        server.open_streams(1)
        outcome = server.end(limit, "router over its CPU time (ulimit -t), 1 stream")
    assert (outcome.code, outcome.clients, outcome.left) == (-signal.SIGKILL, ["cut"], [])
