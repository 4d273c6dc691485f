"""How the server starts, refuses to start, and ends: real processes and signals."""

import json
import os
import signal
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from fakes import train_backend
from gguf_checkpoints import write_gguf
from serving import ServerProcess, failure, is_alive, occupied_port, wait_until, write_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("falcon"))


def test_ctrl_c_leaves_no_process_behind(model: Path) -> None:
    """SIGINT ends the server with 0, and its shards with it."""
    with ServerProcess("--model-id", str(model), "--num-shard", "2") as server:
        shards = server.shard_pids()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=15) == 0
        assert not any(map(is_alive, shards))


def test_ctrl_c_while_loading_leaves_no_process_behind(model: Path) -> None:
    """SIGINT before the server is ready ends it at once."""
    with ServerProcess("--model-id", str(model), wait=False) as server:
        assert wait_until(lambda: len(server.shard_pids()) == 1, 20)
        shards = server.shard_pids()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=15) == 130
        assert not any(map(is_alive, shards))


def test_sampling_defaults_are_said_and_served(tmp_path: Path) -> None:
    """The model's generation_config.json and the operator's override: in the banner, and in the tokens."""
    content = {"temperature": 0.0, "repetition_penalty": -1}
    (write_model(tmp_path) / "generation_config.json").write_text(json.dumps(content))
    override = '{"max_new_tokens": 3}'
    options = ("--model-id", str(tmp_path), "--override-generation-config", override)
    with ServerProcess(*options) as server:
        greedy = server.generate("the", max_new_tokens=3).json()["generated_text"]
        answer = server.client.post("/v1/completions", json={"prompt": "the"}).json()
        assert answer["choices"][0]["text"] == greedy
        server.process.send_signal(signal.SIGINT)
        assert server.process.stderr is not None
        lines = server.process.stderr.read().splitlines()
    assert "  defaults  temperature 0.0, max_new_tokens 3 (/v1)" in lines
    assert any("`repetition_penalty` must be strictly positive. Given: -1; it is ignored" in line for line in lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_log_that_nobody_reads_does_not_keep_the_server(model: Path, number: int) -> None:
    """The reader of standard error is gone: the server serves, counts what it could not say, and stops."""
    with ServerProcess("--model-id", str(model), wait=False) as server:
        assert server.process.stderr is not None
        server.process.stderr.close()
        server.process.stderr = None
        server.wait_ready()
        assert server.generate("dive", max_new_tokens=2).status_code == 200
        assert wait_until(lambda: server.metric("peregrine_log_lines_dropped_total") > 0, 5)
        server.process.send_signal(number)
        assert server.process.wait(timeout=15) == 0


def test_a_killed_router_takes_its_shards_along(model: Path) -> None:
    """SIGKILL gives the router no chance to clean up; the shards notice."""
    with ServerProcess("--model-id", str(model), "--num-shard", "2") as server:
        shards = server.shard_pids()
        server.process.kill()
        assert wait_until(lambda: not any(map(is_alive, shards)), 10)


def test_servers_of_a_gguf_file_leave_no_folder(tmp_path: Path) -> None:
    """SIGTERM before there are shards removes what the start has written; the next start what SIGKILL left."""
    file, temporary = tmp_path / "falcon.gguf", tmp_path / "tmp"
    write_gguf(file, tokenizer=train_backend(), eos_token_id=0, vocab_size=320)
    temporary.mkdir()
    seen: set[Path] = set()

    def has_new_folder() -> bool:
        new = {*temporary.glob("*/*.gguf")} - seen
        seen.update(new)
        return bool(new)

    for number in signal.SIGKILL, signal.SIGTERM:
        with ServerProcess("--model-id", str(file), wait=False, env={"TMPDIR": str(temporary)}) as server:
            assert wait_until(has_new_folder, 20)
            server.process.send_signal(number)
            assert server.process.wait(timeout=15) in (-number, 128 + number)
        assert len([*temporary.glob("*/*.gguf")]) == (number == signal.SIGKILL)


def test_a_killed_shard_ends_the_server_with_an_error(model: Path) -> None:
    """Running requests fail with 424, health is 503 at once, the exit code is 1 and the log has the reason."""
    with ServerProcess("--model-id", str(model)) as server:
        (shard,) = server.shard_pids()
        stream = server.stream("doomed", max_new_tokens=1900, ignore_eos=True)
        next(stream)
        os.kill(shard, signal.SIGKILL)
        last = next(event for event in stream if "error" in event)
        assert last["error_type"] == "generation"
        assert last["error"] == "Request failed during generation: the server has failed: send the request again"
        assert server.process.wait(timeout=15) == 1
        assert server.process.stderr is not None
        assert "shard 0 was killed by signal 9" in server.process.stderr.read()


def test_a_used_port_is_said_in_one_line(model: Path) -> None:
    """The error names the port and the flag."""
    with occupied_port() as port:
        code, lines = failure("--model-id", str(model), port=port)
    assert code == 1
    assert lines == [f"peregrine: port {port} is in use: stop what listens there, or choose another --port"]


def test_of_two_servers_on_a_port_the_second_says_so_at_once(model: Path) -> None:
    """It does not load its model first, and the first one serves undisturbed."""
    with ServerProcess("--model-id", str(model), wait=False) as first:
        assert wait_until(lambda: len(first.shard_pids()) == 1, 20)
        second = ServerProcess("--model-id", str(model), "--port", str(first.port), wait=False).process
        said = second.communicate(timeout=20)[1]
        assert second.returncode == 1
        assert said == f"peregrine: port {first.port} is in use: stop what listens there, or choose another --port\n"
        first.wait_ready()


def test_a_long_tmpdir_serves(model: Path, tmp_path: Path) -> None:
    """A socket's path has 107 bytes at most; where TMPDIR leaves no room for it, the sockets are elsewhere."""
    folder = tmp_path / ("x" * (98 - len(str(tmp_path)) - 1))
    folder.mkdir()
    with ServerProcess("--model-id", str(model), env={"TMPDIR": str(folder)}) as server:
        assert server.generate("dive", max_new_tokens=2).status_code == 200


def test_more_shards_than_cores_serve(model: Path) -> None:
    """One shard more than the CPU has cores answers as one shard does."""
    shards = str(len(os.sched_getaffinity(0)) + 1)
    options = ("--model-id", str(model), "--dtype", "float32", "--device", "cpu")
    with ServerProcess(*options) as whole, ServerProcess(*options, "--num-shard", shards) as shared:
        assert shared.generate("dive", max_new_tokens=8).json() == whole.generate("dive", max_new_tokens=8).json()


def test_an_idle_connection_outlives_a_proxys_pool(model: Path) -> None:
    """A connection that was idle for longer than uvicorn's 5 s answers; one idle for --keep-alive-timeout is closed."""
    options = ("--model-id", str(model))
    with ServerProcess(*options) as patient, ServerProcess(*options, "--keep-alive-timeout", "1") as hasty:
        kept, dropped = (HTTPConnection("127.0.0.1", server.port) for server in (patient, hasty))
        with closing(kept), closing(dropped):
            for connection in (kept, dropped):
                connection.request("GET", "/health")
                connection.getresponse().read()
            time.sleep(6)
            kept.request("GET", "/health")
            assert kept.getresponse().status == 200
            assert dropped.sock.recv(1) == b""


def test_cuda_without_a_device_is_said_in_one_line(model: Path) -> None:
    """--device cuda on a host without one names the flag to change."""
    code, (line,) = failure("--model-id", str(model), "--device", "cuda")
    assert code == 1
    assert "--device cpu" in line


def damage_weights(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def remove_weights(path: Path) -> None:
    (path / "model.safetensors").unlink()


def become_another_architecture(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "word"),
    [(damage_weights, "model.safetensors"), (remove_weights, "safetensors"), (become_another_architecture, "llama")],
)
def test_a_bad_checkpoint_is_said_in_one_line(damage: object, word: str, tmp_path: Path) -> None:
    """A truncated file, a missing one, another architecture: exit code 1 and one line that says which."""
    path = write_model(tmp_path / "model")
    assert callable(damage)
    damage(path)
    code, lines = failure("--model-id", str(path))
    assert code == 1
    assert len(lines) == 1
    assert word in lines[0]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--model-id", "./nowhere"], "--model-id"),
        (["--dtype", "float7"], "--dtype"),
        (["--kv-cache-dtype", "int4"], "--kv-cache-dtype"),
        (["--speculate", "17"], "--speculate"),
        (["--no-such-option"], "--no-such-option"),
        (["--num-shard", "0"], "num_shard"),
    ],
)
def test_a_bad_option_is_said_in_one_line(options: list[str], word: str) -> None:
    """No traceback: one line that names the option."""
    code, lines = failure(*options)
    assert code in (1, 2)
    assert len(lines) == 1
    assert word in lines[0]
