"""The whole model on the GPU's kernels, under Triton's interpreter, against transformers, at one and two shards."""

import json
import os
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
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROCESS = Path(__file__).with_name("falcon_process.py")
NUM_GENERATED = 2
SCHEDULE = "cached prefixes"
SPLIT_TOKENS = 16
"""So that the longest context is decoded in two splits and the others in one."""


def tokens_of(seed: int, count: int) -> list[int]:
    tokens: list[int] = torch.randint(257, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return tokens


BASE = tokens_of(18, 18)
PROMPTS = [BASE, BASE[:16] + tokens_of(7, 7), BASE[:8] + tokens_of(11, 11), tokens_of(5, 5)]
"""Blocks are of 8 tokens: the second and third prompts share two and one with the first, the fourth none. The first
goes on a token at a time, as decodes do, beside the others' chunks of at most 5, 9 and 13."""
NUM_CACHED = [0, 16, 8, 0]
"""Tokens of each prompt that were computed for the first."""

Case = tuple[str, str | None]
"""Variant, type of the pages."""

CASES: dict[int, list[Case]] = {
    1: [*((variant, None) for variant in VARIANTS), ("7b", "int8"), ("40b", "fp8_e4m3fn")],
    2: [(variant, None) for variant in VARIANTS],
}
"""By the number of shards. Of two, both may have the one KV head (7b), and heads may be padded (7 in all)."""
BOUNDS = {None: 1e-4, "int8": 0.05, "fp8_e4m3fn": 0.2}
"""Bounds of the largest difference among logits, whose standard deviation is about 1. e4m3 has 4 significant bits, int8
up to 8."""

Results = dict[int, dict[Case, dict[str, Any]]]
"""Tokens and logits of rank 0."""


@torch.inference_mode()
def logits_of(model: FalconForCausalLM, tokens: list[int]) -> Tensor:
    logits: Tensor = model(torch.tensor([tokens])).logits[0].float()
    return logits


@pytest.fixture(scope="module")
def oracles() -> dict[str, FalconForCausalLM]:
    return {variant: build_model(variant) for variant in VARIANTS}


@pytest.fixture(scope="module")
def results(oracles: dict[str, FalconForCausalLM], tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Every group runs its cases in one life of its processes, all of them side by side."""
    root = tmp_path_factory.mktemp("triton")
    paths = {variant: str(write_checkpoint(root / variant, model)) for variant, model in oracles.items()}

    def job_of(case: Case) -> dict[str, Any]:
        variant, kv_dtype = case
        job = {"path": paths[variant], "dtype": "float32", "split_tokens": SPLIT_TOKENS, "schedules": [SCHEDULE]}
        job |= {"prompts": PROMPTS, "num_generated": NUM_GENERATED}
        return job if kv_dtype is None else {**job, "kv_dtype": kv_dtype}

    def run(group: tuple[int, int]) -> list[dict[str, Any]]:
        size, rank = group
        cases, output = [job_of(case) for case in CASES[size]], root / f"{rank}-of-{size}"
        job = {"rank": rank, "size": size, "rendezvous": f"{root}/{size}", "output": str(output), "cases": cases}
        command = [sys.executable, "-W", "error", str(PROCESS)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(command, input=json.dumps(job), text=True, check=True, timeout=500, env=environment)
        loaded: list[dict[str, Any]] = torch.load(output)
        return loaded

    groups = [(size, rank) for size in CASES for rank in range(size)]
    with ThreadPoolExecutor(len(groups)) as pool:
        by_group = dict(zip(groups, pool.map(run, groups), strict=True))
    return {
        size: {case: result[SCHEDULE] for case, result in zip(cases, by_group[size, 0], strict=True)}
        for size, cases in CASES.items()
    }


def cases_of(*, is_8_bit: bool) -> list[Any]:
    return [
        pytest.param(size, case, id=" ".join((str(size), *filter(None, case))))
        for size, cases in CASES.items()
        for case in cases
        if (case[1] is not None) == is_8_bit
    ]


def largest_difference(result: dict[str, Any], oracle: FalconForCausalLM) -> float:
    """Largest difference of the logits, from the first token on that no other sequence had computed."""
    pairs = zip(result["tokens"], result["logits"], strict=True)
    return max(float((logits - logits_of(oracle, tokens)[-len(logits) :]).abs().max()) for tokens, logits in pairs)


@pytest.mark.parametrize(("size", "case"), cases_of(is_8_bit=False))
def test_logits_and_tokens_are_those_of_transformers(
    size: int, case: Case, results: Results, oracles: dict[str, FalconForCausalLM]
) -> None:
    """Prompts in ragged chunks beside decodes, from the start and behind blocks that another sequence computed, pages
    out of order, splits merged: logits to 1e-4, tokens equal."""
    variant, _ = case
    result = results[size][case]
    assert largest_difference(result, oracles[variant]) < BOUNDS[None]
    for prompt, tokens in zip(PROMPTS, result["tokens"], strict=True):
        expected = logits_of(oracles[variant], tokens)
        assert tokens[len(prompt) :] == expected[len(prompt) - 1 : -1].argmax(-1).tolist()


@pytest.mark.parametrize(("size", "case"), cases_of(is_8_bit=False))
def test_prefixes_were_not_computed_again(size: int, case: Case, results: Results) -> None:
    """The sequences that share 2, 1 and 0 blocks computed so many tokens fewer, each in several chunks or steps."""
    result = results[size][case]
    computed = [len(logits) for logits in result["logits"]]
    assert computed == [len(tokens) - n for tokens, n in zip(result["tokens"], NUM_CACHED, strict=True)]
    prefill = [sizes[: len(sizes) - NUM_GENERATED] for sizes in result["chunks"]]
    assert prefill == [[16, 1, 1], [5, 2], [9, 2], [5]]


@pytest.mark.parametrize(("size", "case"), cases_of(is_8_bit=True))
def test_8_bit_pages_change_logits_little(
    size: int, case: Case, results: Results, oracles: dict[str, FalconForCausalLM]
) -> None:
    """Chunks and decodes over quantized keys and values: logits near those of float32, and not the same."""
    variant, kv_dtype = case
    assert BOUNDS[None] < largest_difference(results[size][case], oracles[variant]) < BOUNDS[kv_dtype]
