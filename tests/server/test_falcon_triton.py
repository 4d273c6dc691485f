"""The whole model on the GPU's kernels, under Triton's interpreter, against transformers, at one and two shards."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import FalconForCausalLM

from checkpoints import VARIANTS, build_model, write_checkpoint

# The interpreter is slow, and a machine that does something else besides makes minutes of it.
pytestmark = pytest.mark.timeout(600)

PROCESS = Path(__file__).with_name("falcon_process.py")
SIZES = [1, 2]
SCHEDULE = "ragged"
NUM_GENERATED = 2
PROMPTS = [torch.randint(257, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (2, 5, 17)]
SPLIT_TOKENS = 16
"""So that the longest context is decoded in two splits and the others in one."""

Results = dict[int, dict[str, dict[str, Any]]]
"""By group size and variant: tokens and logits of rank 0."""


@torch.inference_mode()
def logits_of(model: FalconForCausalLM, tokens: list[int]) -> Tensor:
    logits: Tensor = model(torch.tensor([tokens])).logits[0].float()
    return logits


@pytest.fixture(scope="module")
def oracles() -> dict[str, FalconForCausalLM]:
    return {variant: build_model(variant) for variant in VARIANTS}


@pytest.fixture(scope="module")
def results(oracles: dict[str, FalconForCausalLM], tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Every group runs every variant in one life of its processes."""
    root = tmp_path_factory.mktemp("triton")
    work = {"dtype": "float32", "schedules": [SCHEDULE], "prompts": PROMPTS, "num_generated": NUM_GENERATED}
    cases = [
        {"path": str(write_checkpoint(root / variant, model)), "split_tokens": SPLIT_TOKENS, **work}
        for variant, model in oracles.items()
    ]

    def run(group: tuple[int, int]) -> list[dict[str, Any]]:
        size, rank = group
        output = root / f"{rank}-of-{size}"
        job = {"rank": rank, "size": size, "rendezvous": f"{root}/{size}", "output": str(output), "cases": cases}
        command = [sys.executable, "-W", "error", str(PROCESS)]
        subprocess.run(command, input=json.dumps(job), text=True, check=True, timeout=500)
        loaded: list[dict[str, Any]] = torch.load(output)
        return loaded

    by_size = {}
    for size in SIZES:
        with ThreadPoolExecutor(size) as pool:
            first, *_ = list(pool.map(run, [(size, rank) for rank in range(size)]))
        by_size[size] = {variant: case[SCHEDULE] for variant, case in zip(VARIANTS, first, strict=True)}
    return by_size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_tokens_are_those_of_transformers(
    variant: str, size: int, results: Results, oracles: dict[str, FalconForCausalLM]
) -> None:
    """Prompts in ragged chunks beside decodes, pages out of order, splits merged: logits to 1e-4, tokens equal."""
    result = results[size][variant]
    for prompt, tokens, logits in zip(PROMPTS, result["tokens"], result["logits"], strict=True):
        expected = logits_of(oracles[variant], tokens)
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
        assert tokens[len(prompt) :] == expected[len(prompt) - 1 : -1].argmax(-1).tolist()
