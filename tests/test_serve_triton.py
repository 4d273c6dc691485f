"""The whole server on the GPU's kernels, without a GPU: real processes and HTTP, Triton's interpreter on the shards."""

import threading
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from checkpoints import build_model
from peregrine_router.request import Request, SamplingParams
from runners import generated, load_runner, make_scheduler, run
from serving import ServerProcess, write_model

WARPED = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "do_sample": True, "seed": 7}
"""Of the last of the requests: sampled in steps in which others are greedy."""


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


def test_two_shards_serve_ragged_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Concurrent prompts, cut into chunks beside running decodes, get the text of transformers; a sampled one gets what
    the CPU backend draws of the same seed."""
    monkeypatch.setenv("PEREGRINE_BACKEND", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    options = ("--model-id", str(write_model(tmp_path)), "--dtype", "float32", "--num-shard", "2")
    limits = ("--max-batch-prefill-tokens", "16", "--block-size", "16", "--max-total-tokens", "128")
    prompts = ["falcon", "a prompt that is longer than one step may be " * 2, "x", "drawn"]
    answers = [""] * len(prompts)
    with ServerProcess(*options, *limits) as server:

        def run(index: int) -> None:
            warped = WARPED if index == len(prompts) - 1 else {}
            response = server.generate(prompts[index], max_new_tokens=6, ignore_eos=True, **warped)
            answers[index] = response.json()["generated_text"]

        threads = [threading.Thread(target=run, args=(index,)) for index in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    oracle = build_model("7b", vocab_size=256, eos_token_id=255, bos_token_id=255)
    monkeypatch.delenv("PEREGRINE_BACKEND")
    expected = [continuation(oracle, tokenizer, prompt, 6) for prompt in prompts[:-1]]
    assert answers == [*expected, sampled_continuation(tmp_path, tokenizer, prompts[-1], 6)]
