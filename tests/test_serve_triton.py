"""The whole server on the GPU's kernels, without a GPU: real processes and HTTP, Triton's interpreter on the shards."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from checkpoints import build_model
from falcons import falcon_config
from peregrine_kernels.kv_cache import KV_DTYPES
from peregrine_router.request import Request, SamplingParams
from peregrine_server.models.falcon.footprint import kv_bytes_per_token
from runners import generated, load_runner, make_scheduler, run
from serving import ServerProcess, write_model

pytestmark = pytest.mark.slow

WARPED: dict[str, Any] = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "do_sample": True, "seed": 7}
"""Parameters of the last request: sampled in steps in which others are greedy."""
ON_TRITON = {"PEREGRINE_BACKEND": "triton", "TRITON_INTERPRET": "1"}
LIMITS = ("--max-batch-prefill-tokens", "16", "--block-size", "16", "--max-total-tokens", "128")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("falcon"))


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path / "tokenizer.json"))


@pytest.fixture(scope="module")
def oracle() -> torch.nn.Module:
    return build_model("7b", vocab_size=256, eos_token_id=255, bos_token_id=255)


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[ServerProcess]:
    """A server of two shards."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in ON_TRITON.items():
            monkeypatch.setenv(name, value)
        server = ServerProcess("--model-id", str(path), "--dtype", "float32", "--num-shard", "2", *LIMITS, wait=False)
    with server:
        server.wait_ready()
        yield server


@torch.inference_mode()
def continuation(model: torch.nn.Module, tokenizer: Tokenizer, prompt: str, count: int) -> str:
    """transformers' greedy continuation."""
    tokens = tokenizer.encode(prompt).ids
    for _ in range(count):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    text: str = tokenizer.decode(tokens[-count:])
    return text


def sampled_continuation(path: Path, tokenizer: Tokenizer, prompt: str, count: int) -> str:
    """The CPU backend's."""
    request = Request("0", tuple(tokenizer.encode(prompt).ids), SamplingParams(**WARPED), count)
    (sequence,) = run(load_runner(path), make_scheduler(), [request])
    text: str = tokenizer.decode(generated(sequence))
    return text


def test_ragged_requests(server: ServerProcess, path: Path, tokenizer: Tokenizer, oracle: torch.nn.Module) -> None:
    """Concurrent prompts, cut into chunks beside running decodes, get the text of transformers; a sampled one gets what
    the CPU backend draws of the same seed."""
    prompts = ["falcon", "a prompt that is longer than one step may be " * 2, "x", "drawn"]
    answers = [""] * len(prompts)

    def answer(index: int) -> None:
        warped = WARPED if index == len(prompts) - 1 else {}
        response = server.generate(prompts[index], max_new_tokens=6, ignore_eos=True, **warped)
        answers[index] = response.json()["generated_text"]

    threads = [threading.Thread(target=answer, args=(index,)) for index in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [continuation(oracle, tokenizer, prompt, 6) for prompt in prompts[:-1]]
    assert answers == [*expected, sampled_continuation(path, tokenizer, prompts[-1], 6)]


def test_a_prompt_behind_a_cached_prefix(server: ServerProcess, tokenizer: Tokenizer, oracle: torch.nn.Module) -> None:
    """Two blocks of 16 that an earlier prompt computed are not computed again, and the text is that of transformers."""
    prefix = "thirty-two bytes begin with these"
    for rest, num_cached in ((" one", 0), (" or those, cut into chunks", 32)):
        answer = server.generate(prefix + rest, max_new_tokens=3, ignore_eos=True, details=True).json()
        assert answer["details"]["cached_tokens"] == num_cached
        assert answer["generated_text"] == continuation(oracle, tokenizer, prefix + rest, 3)


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_8_bit_pages_from_the_command_line(kv_dtype: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--kv-cache-dtype reaches the shard, which counts its bytes; the lines at the start name it; it answers."""
    for name, value in ON_TRITON.items():
        monkeypatch.setenv(name, value)
    with ServerProcess("--model-id", str(path), "--dtype", "float32", "--kv-cache-dtype", kv_dtype, *LIMITS) as server:
        assert server.process.stderr is not None
        line = next(line for line in server.process.stderr if "KV cache" in line)
        num_bytes = kv_bytes_per_token(falcon_config(path), 1, "float32", is_8_bit=True)
        assert line.rstrip().endswith(f"tokens of {num_bytes:,} bytes, {kv_dtype}")
        assert server.generate("falcon", max_new_tokens=2, ignore_eos=True).status_code == 200
