"""The CPU image: what it runs as, what it serves, how it ends."""

import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from containers import CPU_ARCHIVE, CPU_IMAGE, Container, engine, inspect
from peregrine_router.launch.model_files import demo_path
from raw_http import request

MAX_BYTES = 820e6
MAX_COMPRESSED_BYTES = 260e6
STREAM = b'{"inputs": "Once upon a time", "parameters": {"max_new_tokens": %d, "ignore_eos": true}}'
LONG = 1000
"""Tokens of a stream that still runs when the server is told to stop."""
NOBODY = "1000710000:0"
"""An uid without a name, as OpenShift gives one to each project."""
WRITABLE = """
import os
for folder in ("/", "/opt/peregrine", "/opt/bytecode", "/usr/bin", "/etc", "/data", "/tmp", "/dev/shm"):
    try:
        open(os.path.join(folder, "written"), "w").close()
        print(folder)
    except OSError:
        pass
"""
BYTECODE = """
import pathlib
folders = [pathlib.Path(name) for name in ("/opt/peregrine", "/usr")]
print([str(path) for folder in folders for path in folder.rglob("*.pyc")])
"""
TOOLS = """
import importlib.util, shutil
print([tool for tool in ("cc", "gcc", "g++", "clang", "as", "ld", "make", "pip", "pip3", "curl") if shutil.which(tool)])
print([module for module in ("pip", "ensurepip", "ziglang") if importlib.util.find_spec(module)])
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Container]:
    with Container() as container:
        yield container.wait_healthy()


def events(answer: bytes) -> list[dict[str, object]]:
    """The events of a stream."""
    return [json.loads(line) for line in re.findall(rb"^data: ?(\{.*\})\r?$", answer, re.MULTILINE)]


def test_it_runs_as_uid_1000_without_any_privilege(server: Container) -> None:
    """Group 0, no capabilities, none to be gained, system calls filtered."""
    status = server.status()
    assert set(status["Uid"].split()) == {"1000"}
    assert set(status["Gid"].split()) == {"0"}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_only_data_and_temporary_folders_are_writable(server: Container) -> None:
    """The root is read-only, and nothing that the server runs needs it otherwise."""
    assert server.python(WRITABLE).split() == ["/data", "/tmp", "/dev/shm"]


def test_it_is_healthy_by_its_own_health_check(server: Container) -> None:
    """The command that an engine runs every few seconds; `server` waits for it."""
    assert inspect("container", server.name)["Config"]["Healthcheck"]["Test"] == ["CMD", "peregrine", "health"]


def test_it_has_no_compiler_and_no_package_manager(server: Container) -> None:
    """Nor a client of HTTP on the command line."""
    assert server.python(TOOLS).split("\n")[:2] == ["[]", "[]"]


def test_bytecode_lies_in_one_place(server: Container) -> None:
    """Nothing reads what lies beside the modules."""
    assert server.python(BYTECODE).strip() == "[]"


def test_it_streams_on_port_80_without_a_network(server: Container) -> None:
    """Each token is an event of its own."""
    assert len(events(server.post(STREAM % 8, b"/generate_stream"))) == 8


def test_it_knows_tgis_launcher_by_name(server: Container) -> None:
    """As deployments call it whose command says so."""
    assert "--model-id" in server.exec("text-generation-launcher", "--help")


def test_the_image_says_what_it_is() -> None:
    """Port, volume, environment, labels."""
    config = inspect("image", CPU_IMAGE)["Config"]
    assert config["ExposedPorts"].keys() == {"80/tcp"}
    assert config["Volumes"].keys() == {"/data"}
    assert config["User"] == "1000:0"
    assert {"PORT=80", "HF_HOME=/data", "PEREGRINE_HOSTNAME=0.0.0.0"} <= set(config["Env"])
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_the_image_is_small() -> None:
    """Unpacked, and as a registry keeps it."""
    unpacked, compressed = inspect("image", CPU_IMAGE)["Size"], CPU_ARCHIVE.stat().st_size
    print(f"{CPU_IMAGE}: {unpacked / 1e6:.0f} MB unpacked, {compressed / 1e6:.0f} MB compressed")
    assert unpacked <= MAX_BYTES
    assert compressed <= MAX_COMPRESSED_BYTES


def test_any_uid_serves_from_a_folder_of_its_group() -> None:
    """A uid that has no name, two shards; /data is writable to group 0."""
    with Container("--port", "8080", "--num-shard", "2", options=("--user", NOBODY)) as container:
        container.wait_healthy()
        assert set(container.status()["Uid"].split()) == {"1000710000"}
        assert "/data" in container.python(WRITABLE).split()


def test_weights_that_are_there_need_no_network_and_no_writing(tmp_path: Path) -> None:
    """A model of the hub in a cache that another user owns, mounted read-only."""
    commit = "0" * 40
    model = tmp_path / "hub" / "models--someone--falcon"
    shutil.copytree(demo_path(), model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    tmp_path.chmod(0o755)
    with Container("--model-id", "someone/falcon", options=("--volume", f"{tmp_path}:/data:ro")) as container:
        container.wait_healthy()
        assert b'"generated_text"' in container.post(STREAM % 2, b"/generate")


def test_a_stop_lets_streams_finish() -> None:
    """SIGTERM under 8 streams: each gets all its tokens, and the container exits with 0."""
    stream = request(STREAM % LONG, b"Connection: close", path=b"/generate_stream")
    with Container() as container, ThreadPoolExecutor(8) as pool:
        container.wait_healthy()
        connections = [container.connect() for _ in range(8)]
        for connection in connections:
            connection.send(stream)
        assert all(len(events(connection.read(until=b"data:"))) < LONG for connection in connections)
        answers = [pool.submit(connection.read) for connection in connections]
        engine("stop", "--time", "60", container.name)
        assert [len(events(answer.result())) for answer in answers] == [LONG] * 8
        assert container.exit_code() == 0
        for connection in connections:
            connection.socket.close()


def test_a_memory_limit_that_is_too_low_ends_with_a_readable_line() -> None:
    """Instead of a container that is gone without a word."""
    with Container(options=("--memory", "170m", "--memory-swap", "170m")) as container:
        assert container.exit_code() == 1
        assert "out of memory" in container.log()
