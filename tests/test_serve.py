"""The whole server from outside: real processes, sockets and signals."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from peregrine_router.launch.model_files import demo_path
from serving import ServerProcess, failure, is_alive, occupied_port, wait_until, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("falcon"))


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--model-id", str(model), "--dtype", "float32", "--max-concurrent-requests", "40") as server:
        yield server


def test_the_demo_model_is_ready_within_ten_seconds_and_speaks_as_transformers_does() -> None:
    """`peregrine serve` alone answers soon, with the tokens that transformers computes of the same weights."""
    start = time.monotonic()
    with ServerProcess("--dtype", "float32") as demo:
        assert time.monotonic() - start < 10
        answer = demo.generate("It was a fine morning, and", max_new_tokens=24).json()["generated_text"]
    tokenizer = AutoTokenizer.from_pretrained(demo_path())
    oracle = AutoModelForCausalLM.from_pretrained(demo_path(), dtype=torch.float32)
    ids = tokenizer("It was a fine morning, and", return_tensors="pt")
    want = oracle.generate(**ids, max_new_tokens=24, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert answer == tokenizer.decode(want, skip_special_tokens=True)


@pytest.mark.slow
def test_a_second_request_gets_its_first_token_before_the_first_ends(server: ServerProcess) -> None:
    """While a long generation streams, another one starts and finishes."""
    long = server.stream("a long story", max_new_tokens=600, ignore_eos=True)
    next(long)
    second = list(server.stream("a short one", max_new_tokens=3, ignore_eos=True))
    assert len(second) == 3
    rest = sum(1 for _ in long)
    assert rest == 599
    # Everything the kernel could have buffered of the first stream is far less than what was still to come.
    assert server.generate("x", max_new_tokens=1).status_code == 200


def test_the_next_turn_of_a_conversation_finds_the_last_one_cached(server: ServerProcess) -> None:
    """Prompt and answer that are sent again with more behind them are computed only from the last whole block on."""
    first = "Tell me of the falcon. " * 8
    answer = server.generate(first, max_new_tokens=40, ignore_eos=True)
    assert answer.headers["x-cached-tokens"] == "0"
    known = int(answer.headers["x-prompt-tokens"])
    again = server.generate(first + " And then?", max_new_tokens=4, ignore_eos=True)
    assert known // 64 * 64 - 64 <= int(again.headers["x-cached-tokens"]) <= known
    assert int(again.headers["x-cached-tokens"]) >= 64
    assert server.metric("peregrine_cached_tokens") >= 64


@pytest.mark.slow
def test_streams_run_side_by_side(server: ServerProcess) -> None:
    """A short request that arrives later ends while the long one is still far from its end."""
    seen: dict[str, float] = {}

    def run(name: str, tokens: int) -> None:
        for _ in server.stream(name, max_new_tokens=tokens, ignore_eos=True):
            pass
        seen[name] = time.monotonic()

    long = threading.Thread(target=run, args=("long", 600))
    long.start()
    assert wait_until(lambda: server.metric("tgi_batch_current_size") == 1, 10)
    run("short", 5)
    assert "long" not in seen
    long.join()
    assert seen["short"] < seen["long"]


@pytest.mark.slow
def test_sixteen_clients_get_what_each_would_get_alone(server: ServerProcess) -> None:
    """Concurrent requests of many lengths do not change one another's text."""
    prompts = ["x" * (1 + 7 * i) for i in range(16)]
    alone = [server.generate(p, max_new_tokens=20, ignore_eos=True).json()["generated_text"] for p in prompts]
    together = [""] * 16

    def run(i: int) -> None:
        together[i] = server.generate(prompts[i], max_new_tokens=20, ignore_eos=True).json()["generated_text"]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_stream_and_answer_are_the_same_text(server: ServerProcess) -> None:
    """Joined token texts, the last event's text and /generate agree."""
    events = list(server.stream("same", max_new_tokens=30, ignore_eos=True))
    answer = server.generate("same", max_new_tokens=30, ignore_eos=True).json()["generated_text"]
    assert "".join(event["token"]["text"] for event in events) == events[-1]["generated_text"] == answer


def test_a_client_that_leaves_frees_its_blocks(server: ServerProcess) -> None:
    """A stream closed in the middle stops computing, and every block comes back."""
    stream = server.stream("leaving", max_new_tokens=1900, ignore_eos=True)
    for _ in range(3):
        next(stream)
    assert server.metric("peregrine_kv_blocks_used") > 0
    stream.close()
    assert wait_until(lambda: server.metric("peregrine_kv_blocks_used") == 0, 5)
    assert server.metric("tgi_batch_current_size") == 0


@pytest.mark.slow
def test_two_shards_give_the_same_tokens_as_one(server: ServerProcess, model: Path) -> None:
    """Seven heads on two processes: greedy and sampled text are those of a single one."""
    with ServerProcess("--model-id", str(model), "--dtype", "float32", "--num-shard", "2") as sharded:
        assert len(sharded.shard_pids()) == 2
        for parameters in ({}, {"do_sample": True, "seed": 5, "temperature": 0.8}):
            answers = [
                each.generate("sharded", max_new_tokens=40, ignore_eos=True, **parameters).json()["generated_text"]
                for each in (server, sharded)
            ]
            assert answers[0] == answers[1]


@pytest.mark.slow
def test_draft_tokens_change_no_text(server: ServerProcess, model: Path) -> None:
    """With --speculate some draft tokens are accepted, and greedy and sampled texts are those of a server without."""
    with ServerProcess("--model-id", str(model), "--dtype", "float32", "--speculate", "4") as speculating:
        for parameters in ({}, {"do_sample": True, "seed": 5, "temperature": 0.3}):
            answers = [
                each.generate("again and again and again", max_new_tokens=60, ignore_eos=True, **parameters).json()
                for each in (server, speculating)
            ]
            assert answers[0] == answers[1]
        assert speculating.metric("peregrine_accepted_tokens") > 0


BAD_BODIES = {
    "empty prompt": {"inputs": ""},
    "too long": {"inputs": "x" * 3000},
    "too many tokens": {"inputs": "x", "parameters": {"max_new_tokens": 5000}},
    "bad temperature": {"inputs": "x", "parameters": {"temperature": 0}},
    "unknown value": {"inputs": "x", "parameters": {"max_new_tokens": "many"}},
    "wrong type": {"inputs": 5},
    "no inputs": {"parameters": {}},
    "a list": ["x"],
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
@pytest.mark.parametrize("route", ["/generate", "/generate_stream", "/"])
def test_bad_input_is_a_422_and_the_server_goes_on(server: ServerProcess, route: str, body: object) -> None:
    """Each is refused with {"error", "error_type"} in one line, and the next request is served."""
    response = server.client.post(route, json=body)
    assert response.status_code == 422
    assert set(response.json()) == {"error", "error_type"}
    assert "\n" not in response.json()["error"]
    assert server.generate("x", max_new_tokens=1).status_code == 200


def test_malformed_json_is_a_422(server: ServerProcess) -> None:
    """A body that is no JSON gets an answer in JSON."""
    response = server.client.post("/generate", content=b'{"inputs": ', headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.json()["error_type"] == "validation"


@pytest.mark.slow
def test_more_requests_than_allowed_are_a_429(server: ServerProcess) -> None:
    """Beyond --max-concurrent-requests the answer is 429 with Retry-After, and the others run on."""
    statuses: list[int] = []
    streams = [server.stream("busy", max_new_tokens=1900, ignore_eos=True) for _ in range(40)]
    for stream in streams:
        next(stream)
    response = server.generate("one more", max_new_tokens=1)
    statuses.append(response.status_code)
    for stream in streams:
        stream.close()
    assert statuses == [429]
    assert int(response.headers["Retry-After"]) >= 1
    assert wait_until(lambda: server.generate("x", max_new_tokens=1).status_code == 200, 10)


@pytest.mark.slow
def test_a_request_ends_at_its_timeout(server: ServerProcess) -> None:
    """An answer that takes longer is a 504, a stream ends with the error, no block stays taken, and others run on."""
    body = {"inputs": "x", "parameters": {"max_new_tokens": 1900, "ignore_eos": True}}
    other = server.stream("other", max_new_tokens=100, ignore_eos=True)
    next(other)
    response = server.client.post("/generate", json=body, headers={"x-request-timeout": "0.3"})
    assert response.status_code == 504
    assert response.json()["error_type"] == "timeout"
    events = list(server.stream("x", max_new_tokens=1900, ignore_eos=True, timeout=0.3))
    assert events[-1]["error_type"] == "timeout"
    assert all(event["generated_text"] is None for event in events[:-1])
    assert sum(1 for _ in other) == 99
    assert wait_until(lambda: server.metric("peregrine_kv_blocks_used") == 0, 5)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_killed_router_takes_its_shards_along(model: Path) -> None:
    """SIGKILL gives the router no chance to clean up; the shards notice."""
    with ServerProcess("--model-id", str(model), "--num-shard", "2") as server:
        shards = server.shard_pids()
        server.process.kill()
        assert wait_until(lambda: not any(map(is_alive, shards)), 10)


@pytest.mark.slow
def test_a_killed_shard_ends_the_server_with_an_error(model: Path) -> None:
    """Running requests fail with 424, health is 503 at once, the exit code is 1 and the reason is said."""
    with ServerProcess("--model-id", str(model)) as server:
        (shard,) = server.shard_pids()
        stream = server.stream("doomed", max_new_tokens=1900, ignore_eos=True)
        next(stream)
        os.kill(shard, signal.SIGKILL)
        last = next(event for event in stream if "error" in event)
        assert last["error_type"] == "generation"
        assert "shard 0 was killed by signal 9" in last["error"]
        assert server.process.wait(timeout=15) == 1
        assert server.process.stderr is not None
        assert "shard 0 was killed by signal 9" in server.process.stderr.read()


@pytest.mark.slow
def test_a_used_port_is_said_in_one_line(model: Path) -> None:
    """The error names the port and the flag."""
    with occupied_port() as port:
        code, lines = failure("--model-id", str(model), port=port)
    assert code == 1
    assert lines == [f"peregrine: port {port} is in use: stop what listens there, or choose another --port"]


def test_more_shards_than_devices_is_said_in_one_line(model: Path) -> None:
    """The error names the number of devices there are."""
    code, (line,) = failure("--model-id", str(model), "--num-shard", "99", "--device", "cpu")
    assert code == 1
    assert "--num-shard 99" in line
    assert f"{len(os.sched_getaffinity(0))} CPU cores" in line


@pytest.mark.slow
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


@pytest.mark.slow
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
