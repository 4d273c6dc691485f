"""Parity of the model with transformers, at one, two and three shards, in real processes."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import VARIANTS, build_model, write_checkpoint
from torch import Tensor
from transformers import FalconForCausalLM

PROCESS = Path(__file__).with_name("falcon_process.py")
SCHEDULES = ["whole", "chunks of 1", "chunks of 7", "chunks of 16", "ragged"]
NUM_GENERATED = 4
LENGTHS = [4, 11, 20]
SIZES = [1, 2, 3]


def random_prompts(lengths: list[int], vocab_size: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(vocab_size, (length,), generator=generator).tolist() for length in lengths]


def run_group(directory: Path, size: int, cases: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The results of every rank of one group of processes."""

    def run(rank: int) -> list[dict[str, Any]]:
        output = directory / f"rank-{rank}-of-{size}"
        job = {"rank": rank, "size": size, "rendezvous": f"{directory}/{size}", "output": str(output), "cases": cases}
        subprocess.run([sys.executable, PROCESS], input=json.dumps(job), text=True, check=True, timeout=200)
        results: list[dict[str, Any]] = torch.load(output)
        return results

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


@torch.inference_mode()
def expected(model: FalconForCausalLM, tokens: list[int]) -> Tensor:
    """transformers' logits of every position [tokens, vocabulary]."""
    return model(torch.tensor([tokens])).logits[0].float()


def greedy(model: FalconForCausalLM, prompt: list[int], num_tokens: int) -> list[int]:
    """transformers' own greedy continuation, prompt included."""
    tokens = list(prompt)
    for _ in range(num_tokens):
        tokens.append(int(expected(model, tokens)[-1].argmax()))
    return tokens


@pytest.fixture(scope="module")
def models() -> dict[str, FalconForCausalLM]:
    return {variant: build_model(variant) for variant in VARIANTS}


@pytest.fixture(scope="module")
def checkpoints(models: dict[str, FalconForCausalLM], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One checkpoint a variant, of varied dialects and formats."""
    root = tmp_path_factory.mktemp("checkpoints")
    formats = [("old", "safetensors", 1), ("transition", "bin", 3), ("new", "safetensors", 2), ("new", "bin", 1)]
    choices = dict(zip(["rw-1b", "7b", "40b", "180b"], formats, strict=True))
    for variant, model in models.items():
        write_checkpoint(root / variant, model, *choices.get(variant, ("new", "safetensors", 1)))
    return root


@pytest.fixture(scope="module")
def groups(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[list[dict[str, Any]]]]:
    """By group size, rank by rank, the results of every variant."""
    cases = [
        {
            "path": str(checkpoints / variant),
            "dtype": "float32",
            "backend": "default",
            "schedules": SCHEDULES,
            "prompts": random_prompts(LENGTHS, 257),
            "num_generated": NUM_GENERATED,
        }
        for variant in VARIANTS
    ]
    return {size: run_group(tmp_path_factory.mktemp("group"), size, cases) for size in SIZES}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_float32_logits_and_greedy_tokens_match_transformers(
    variant: str, size: int, models: dict[str, FalconForCausalLM], groups: dict[int, list[list[dict[str, Any]]]]
) -> None:
    """However prompts are chunked, batched and sharded, logits are transformers' to 1e-4 and greedy tokens equal."""
    ranks = [results[list(VARIANTS).index(variant)] for results in groups[size]]
    prompts = random_prompts(LENGTHS, 257)
    for schedule in SCHEDULES:
        for i, prompt in enumerate(prompts):
            tokens = greedy(models[variant], prompt, NUM_GENERATED)
            assert ranks[0][schedule]["tokens"][i] == tokens
            torch.testing.assert_close(
                ranks[0][schedule]["logits"][i], expected(models[variant], tokens), atol=1e-4, rtol=0
            )
