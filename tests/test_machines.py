"""Tensor parallelism over TCP: a router and shards that share no file and no loopback."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from namespaces import Namespaces, can_make_namespaces
from peregrine_router.launch.shard_command import ENVIRONMENT_IS_SET
from peregrine_server.machines.curve_keys import write_keys
from serving import ServerProcess, free_port, wait_until

pytestmark = pytest.mark.slow
PEREGRINE = str(Path(sys.executable).with_name("peregrine"))
BODY = {"inputs": "The wind", "parameters": {"max_new_tokens": 24, "details": True}}
HEALTH_SECONDS = 3.5
"""A beat is due 0.5 s after the last one; health is red within 2 s of that, and curl takes its time."""
OLD_VERSION = """
import importlib.metadata
importlib.metadata.version = lambda _: "0.0.9"
from peregrine_router.cli import main
main()
"""


class Process:
    """A process whose standard error goes to a file."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("w") as stderr:
            self.process = subprocess.Popen(command, stderr=stderr, stdout=subprocess.DEVNULL, start_new_session=True)

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self) -> int:
        """The exit code."""
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Cluster:
    """A router and two shards on three machines."""

    def __init__(self, machines: Namespaces, folder: Path) -> None:
        self.machines, self.folder, self.keys = machines, folder, folder / "keys"
        write_keys(self.keys)
        options = ["--num-shard", "2", "--local-shards", "0", "--shard-address", "tcp://eth0:5555", "--port", "3000"]
        command = [PEREGRINE, "serve", *options, "--shard-keys", str(self.keys), "--shard-timeout", "4"]
        self.router = Process(machines.command(0, command), folder / "router")
        self.shards: list[Process] = []
        self.started: list[Process] = []

    def shard(self, rank: int, machine: int, *options: str, program: Sequence[str] = (PEREGRINE,)) -> Process:
        """Starts a shard by the command `peregrine`, or `program`."""
        arguments = ["--router", "tcp://10.77.0.1:5555", "--rank", str(rank), "--num-shard", "2", "--threads", "1"]
        command = [*program, "shard", *arguments, "--shard-keys", str(self.keys), "--timeout", "4", *options]
        log = self.folder / f"shard-{rank}-{len(self.started)}"
        self.started.append(Process(self.machines.command(machine, command), log))
        return self.started[-1]

    def curl(self, path: str, *options: str) -> str:
        command = ["curl", "-s", *options, f"http://127.0.0.1:3000{path}"]
        return subprocess.run(self.machines.command(0, command), capture_output=True, text=True, check=False).stdout

    def status(self) -> str:
        """Status of /health, 000 if nobody answers."""
        return self.curl("/health", "-o", "/dev/null", "-w", "%{http_code}")

    def stop(self) -> None:
        for process in [self.router, *self.started]:
            process.kill()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The router, up, without a shard."""
    if not can_make_namespaces():
        pytest.skip("needs root, `ip netns` (iproute2) and curl")
    with Namespaces(3) as machines:
        cluster = Cluster(machines, tmp_path_factory.mktemp("machines"))
        yield cluster
        cluster.stop()


def test_the_router_says_which_shards_are_missing(cluster: Cluster) -> None:
    """The first shards of a group are there long before the last node is."""
    assert wait_until(lambda: "waiting at tcp://10.77.0.1:5555 for shards 0, 1 of 2" in cluster.router.text, 60)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num-shard", "3"], "it has --num-shard 3, the router 2"),
        (["--rank", "2"], "rank 2 is"),
    ],
)
def test_a_shard_that_does_not_fit_is_refused(cluster: Cluster, options: list[str], words: str) -> None:
    """It ends with the router's reason, which is in the router's log too."""
    shard = cluster.shard(0, 1, *options)
    assert shard.wait() == 1
    assert words in shard.text
    assert words in cluster.router.text


def test_another_version_is_refused(cluster: Cluster) -> None:
    """Both sides name both versions."""
    # The variable keeps the process from starting itself again, as another program.
    program = ["env", f"{ENVIRONMENT_IS_SET}=1", sys.executable, "-c", OLD_VERSION]
    shard = cluster.shard(0, 1, program=program)
    assert shard.wait() == 1
    for text in (shard.text, cluster.router.text):
        assert re.search(r"its version is 0\.0\.9\+\w{8}, the router's [\d.]+\+\w{8}: install the same", text)


def test_other_keys_are_refused(cluster: Cluster) -> None:
    """Both sides say so; without the keys nothing is decoded."""
    other = cluster.folder / "other"
    write_keys(other)
    shard = cluster.shard(0, 1, "--shard-keys", str(other))
    assert shard.wait() == 1
    assert "has other keys: give both the same --shard-keys" in shard.text
    assert wait_until(lambda: "its keys are not those of --shard-keys" in cluster.router.text, 5)


def test_a_shard_that_leaves_before_the_last_has_joined_is_waited_for(cluster: Cluster) -> None:
    """Its place is free for its successor."""
    first = cluster.shard(0, 1)
    assert wait_until(lambda: "shard 0 joined from 10.77.0.2" in cluster.router.text, 30)
    first.kill()
    assert wait_until(
        lambda: "shard 0 at 10.77.0.2 lost its connection; waiting for another" in cluster.router.text, 10
    )


def test_the_tokens_are_those_of_one_machine(cluster: Cluster) -> None:
    """Two shards on two machines sample what two shards of one machine sample."""
    cluster.shards = [cluster.shard(rank, rank + 1) for rank in range(2)]
    assert wait_until(lambda: cluster.status() == "200", 120), cluster.router.text
    options = ["-H", "Content-Type: application/json", "-d", json.dumps(BODY)]
    answer = json.loads(cluster.curl("/generate", *options))
    with ServerProcess("--num-shard", "2", "--max-batch-total-tokens", "4096") as server:
        expected = server.client.post("/generate", json=BODY).json()
    assert [token["id"] for token in answer["details"]["tokens"]] == [
        token["id"] for token in expected["details"]["tokens"]
    ]


@pytest.mark.alone
def test_a_cut_cable_is_noticed(cluster: Cluster) -> None:
    """/health is red within 2 s of the beat that is missing; then stream, router and shards end with a reason."""
    body = json.dumps({"inputs": "The", "parameters": {"max_new_tokens": 2000}})
    command = [
        "curl",
        "-sN",
        "-H",
        "Content-Type: application/json",
        "-d",
        body,
        "http://127.0.0.1:3000/generate_stream",
    ]
    stream = subprocess.Popen(cluster.machines.command(0, command), stdout=subprocess.PIPE, text=True)
    assert stream.stdout is not None
    assert stream.stdout.readline().startswith("data:")
    cluster.machines.cut(2)
    since = time.monotonic()
    assert wait_until(lambda: cluster.status() == "503", 10)
    assert time.monotonic() - since < HEALTH_SECONDS
    assert cluster.router.wait() == 1
    assert '"error_type":"generation"' in stream.communicate()[0]
    assert "shard 1 showed no sign of life for 4 s (--shard-timeout)" in cluster.router.text
    assert [shard.wait() for shard in cluster.shards] == [1, 1]
    assert all("is gone, or the network to it" in shard.text for shard in cluster.shards)


def test_a_shard_leaves_with_its_router(tmp_path: Path) -> None:
    """One shard beside the router, one that joins over loopback; the router is killed, and both leave."""
    keys, port = tmp_path / "keys", free_port()
    write_keys(keys)
    address = f"tcp://127.0.0.1:{port}"
    options = ["--num-shard", "2", "--local-shards", "1", "--shard-address", address, "--shard-keys", str(keys)]
    server = ServerProcess(*options, "--max-batch-total-tokens", "4096", wait=False)
    command = [PEREGRINE, "shard", "--router", address, "--rank", "1", "--num-shard", "2", "--shard-keys", str(keys)]
    shard = Process(command, tmp_path / "shard")
    try:
        server.wait_ready()
        assert server.generate("The", max_new_tokens=4).status_code == 200
        os.kill(server.process.pid, signal.SIGKILL)
        assert shard.wait() == 1
        assert "is gone" in shard.text
    finally:
        shard.kill()
        server.stop()
