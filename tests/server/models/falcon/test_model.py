"""Parity of the model with transformers, at one, two and three shards, in real processes."""

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import FalconForCausalLM

from checkpoints import VARIANTS, build_model, write_checkpoint
from falcon_groups import Result, run_group
from falcons import falcon_config
from peregrine_server.models.falcon.footprint import weight_bytes

pytestmark = pytest.mark.slow

SIZES = [1, 2, 3]
SCHEDULES = ["whole", "chunks of 1", "chunks of 7", "chunks of 16", "ragged"]
NUM_GENERATED = 4

Groups = dict[int, list[dict[tuple[str, str], Result]]]
"""By group size and rank, the result of every (variant, type)."""


def random_prompts(num: int, lengths: list[int]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(257, (lengths[i % len(lengths)],), generator=generator).tolist() for i in range(num)]


PROMPTS = random_prompts(3, [4, 11, 20])
LONG_PROMPTS = random_prompts(12, [48])
"""Enough tokens for the largest error in bfloat16 to be a stable number."""


@cache
def model_of(variant: str, dtype: torch.dtype) -> FalconForCausalLM:
    """transformers' model: the checkpoint of `dtype` as it is."""
    return build_model(variant, dtype)


@cache
def widened(variant: str) -> FalconForCausalLM:
    """The bfloat16 checkpoint computed in float32."""
    model = copy.deepcopy(model_of(variant, torch.bfloat16))
    torch.nn.Module.to(model, torch.float32)
    return model


@torch.inference_mode()
def logits_of(model: FalconForCausalLM, tokens: list[int]) -> Tensor:
    """transformers' logits of every position, float32[tokens, vocabulary]."""
    logits: Tensor = model(torch.tensor([tokens])).logits[0].float()
    return logits


def greedy(model: FalconForCausalLM, prompt: list[int]) -> list[int]:
    """transformers' own greedy continuation, prompt included."""
    tokens = list(prompt)
    for _ in range(NUM_GENERATED):
        tokens.append(int(logits_of(model, tokens)[-1].argmax()))
    return tokens


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each variant and type, of varied dialects and formats."""
    root = tmp_path_factory.mktemp("checkpoints")
    choices = {"rw-1b": ("old", "safetensors", 1), "7b": ("transition", "bin", 3), "40b": ("new", "safetensors", 2)}
    for variant in VARIANTS:
        for dtype in (torch.float32, torch.bfloat16):
            choice = choices.get(variant, ("new", "safetensors", 1))
            write_checkpoint(root / str(dtype) / variant, model_of(variant, dtype), *choice)
    return root


@pytest.fixture(scope="module")
def groups(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Groups:
    """Every group runs every case in one life of its processes."""
    keys = [(variant, dtype) for variant in VARIANTS for dtype in ("float32", "bfloat16")]
    work = {
        "float32": {"schedules": SCHEDULES, "prompts": PROMPTS, "num_generated": NUM_GENERATED},
        "bfloat16": {"schedules": ["chunks of 16"], "prompts": LONG_PROMPTS, "num_generated": 0},
    }
    cases = [
        {"path": str(checkpoints / f"torch.{dtype}" / variant), "dtype": dtype, **work[dtype]}
        for variant, dtype in keys
    ]
    ranks = {size: run_group(tmp_path_factory.mktemp("group"), size, cases) for size in SIZES}
    return {size: [dict(zip(keys, results, strict=True)) for results in ranks[size]] for size in SIZES}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_float32_logits_and_tokens_are_those_of_transformers(
    variant: str, size: int, schedule: str, groups: Groups
) -> None:
    """However prompts are chunked, batched and sharded, logits are transformers' to 1e-4 and greedy tokens equal."""
    result, model = groups[size][0][variant, "float32"][schedule], model_of(variant, torch.float32)
    for prompt, tokens, logits in zip(PROMPTS, result["tokens"], result["logits"], strict=True):
        assert tokens == greedy(model, prompt)
        torch.testing.assert_close(logits, logits_of(model, tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_bfloat16_is_no_worse_than_that_of_transformers(size: int, groups: Groups) -> None:
    """Mean error of every variant, and largest error of all, are at most 1.2 times those of transformers' bfloat16."""
    largest = []
    for variant in VARIANTS:
        ours = torch.cat(groups[size][0][variant, "bfloat16"]["chunks of 16"]["logits"])
        exact = torch.cat([logits_of(widened(variant), prompt) for prompt in LONG_PROMPTS])
        theirs = torch.cat([logits_of(model_of(variant, torch.bfloat16), prompt) for prompt in LONG_PROMPTS])
        assert (ours - exact).abs().mean() <= 1.2 * (theirs - exact).abs().mean()
        # A token's largest error, averaged over tokens: the largest of all tokens is one number's luck.
        assert (ours - exact).abs().amax(-1).mean() <= 1.2 * (theirs - exact).abs().amax(-1).mean()
        largest.append(((ours - exact).abs().max(), (theirs - exact).abs().max()))
    assert max(ours for ours, _ in largest) <= 1.2 * max(theirs for _, theirs in largest)


@pytest.mark.parametrize("size", SIZES)
def test_ranks_agree_to_the_bit(size: int, groups: Groups) -> None:
    """Every rank has the same logits, so that every rank samples the same tokens."""
    for key, first in groups[size][0].items():
        for schedule in SCHEDULES if key[1] == "float32" else ["chunks of 16"]:
            for rank in groups[size][1:]:
                for a, b in zip(first[schedule]["logits"], rank[key][schedule]["logits"], strict=True):
                    assert torch.equal(a, b)


@pytest.mark.parametrize("size", SIZES)
def test_progress_ends_at_the_weights_that_were_planned(size: int, groups: Groups, checkpoints: Path) -> None:
    """A load reports growing numbers of bytes up to the number that footprint.py computes from the config alone."""
    for rank in groups[size]:
        for (variant, dtype), result in rank.items():
            config = falcon_config(checkpoints / f"torch.{dtype}" / variant)
            total = weight_bytes(config, size, dtype)
            assert result["progress"] == sorted(result["progress"])
            assert result["progress"][-1] == (total, total)
            assert result["weight_bytes"] == weight_bytes(config, size, dtype, has_packed_head=True)
