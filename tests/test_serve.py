"""The whole server from outside: real processes, sockets and signals."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fakes import train_backend
from gguf_checkpoints import MIXES, write_gguf
from peregrine_router.launch.model_files import demo_path
from serving import ServerProcess, wait_until, write_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("falcon"))


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--model-id", str(model), "--dtype", "float32", "--max-concurrent-requests", "40") as server:
        yield server


@pytest.mark.alone
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
    assert server.metric("peregrine_cached_tokens_total") >= 64


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


def test_draft_tokens_change_no_text(server: ServerProcess, model: Path) -> None:
    """With --speculate some draft tokens are accepted, and greedy and sampled texts are those of a server without."""
    with ServerProcess("--model-id", str(model), "--dtype", "float32", "--speculate", "4") as speculating:
        for parameters in ({}, {"do_sample": True, "seed": 5, "temperature": 0.3}):
            answers = [
                each.generate("again and again and again", max_new_tokens=60, ignore_eos=True, **parameters).json()
                for each in (server, speculating)
            ]
            assert answers[0] == answers[1]
        assert speculating.metric("peregrine_accepted_tokens_total") > 0


def test_8_bit_kv_from_the_command_line() -> None:
    """--kv-cache-dtype reaches both shards of the demo, and the lines at the start name it; an answer, by draft tokens
    too, is the same from behind its cached prefix."""
    options = ("--kv-cache-dtype", "int8", "--num-shard", "2", "--speculate", "4", "--block-size", "16")
    with ServerProcess(*options) as server:
        assert server.process.stderr is not None
        assert next(line for line in server.process.stderr if "KV cache" in line).rstrip().endswith("bytes, int8")
        answers = [server.generate("It was a fine morning, and " * 4, max_new_tokens=24) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert len(answers[0].json()["generated_text"]) > 24
    assert [int(answer.headers["x-cached-tokens"]) > 0 for answer in answers] == [False, True]


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


def test_more_requests_than_allowed_are_a_429(server: ServerProcess) -> None:
    """Beyond --max-concurrent-requests the answer is 429 with Retry-After, and the others run on."""
    streams = [server.stream("busy", max_new_tokens=1900, ignore_eos=True) for _ in range(40)]
    with ThreadPoolExecutor(len(streams)) as pool:
        list(pool.map(next, streams))
    response = server.generate("one more", max_new_tokens=1)
    for stream in streams:
        stream.close()
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) >= 1
    assert wait_until(lambda: server.generate("x", max_new_tokens=1).status_code == 200, 10)


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


def test_a_gguf_file_is_served(tmp_path: Path) -> None:
    """With its own tokenizer, and transformers' tokens of the values that its blocks stand for; nothing is left
    behind."""
    file, tokenizer = tmp_path / "falcon-q4_0.gguf", train_backend()
    oracle = write_gguf(file, "7b", MIXES["Q4_0"], tokenizer=tokenizer, eos_token_id=0, vocab_size=320)
    prompt = "falcons dive"
    environment = {"TMPDIR": str(tmp_path), "PEREGRINE_BACKEND": "reference"}
    with ServerProcess("--model-id", str(file), "--dtype", "float32", env=environment) as server:
        answer = server.generate(prompt, max_new_tokens=8, ignore_eos=True).json()["generated_text"]
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    want = oracle.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, eos_token_id=-1)
    assert answer == tokenizer.decode(want[0, ids.shape[1] :].tolist())
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
