"""Every weight format on one, two and three shards, in real processes: the tokens of transformers' model of the values
that the weights stand for."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import FalconForCausalLM

from bitsandbytes_checkpoints import LAYOUTS as BITSANDBYTES
from bitsandbytes_package import SETTINGS, save_quantized
from checkpoints import build_model, write_checkpoint
from falcon_groups import Result, run_group
from falcons import falcon_config
from gptq_awq_checkpoints import INPUT_MAJOR
from peregrine_kernels import DenseWeight
from peregrine_kernels.cpu.torch_backend import TorchBackend
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.partition import partition
from peregrine_server.models.formats.registry import FORMATS, weight_format
from peregrine_server.models.formats.rounded import RoundedFormat
from peregrine_server.models.loading.slices import Slice, whole
from quantized_checkpoints import LAYOUTS, linears, write_quantized

pytestmark = pytest.mark.slow

ONE_LAYER = {"num_hidden_layers": 1}
VARIANTS: dict[str, dict[str, Any]] = {
    "7b": ONE_LAYER,
    "40b": {**ONE_LAYER, "num_ln_in_parallel_attn": 2},
    "rw-1b": ONE_LAYER,
}
"""Multi-query with one LayerNorm; grouped queries with two; sequential, with biases and ALiBi."""
WRITERS: dict[str, Callable[..., FalconForCausalLM]] = {
    **{name: partial(write_quantized, layout=each) for name, each in (LAYOUTS | INPUT_MAJOR | BITSANDBYTES).items()},
    **{f"{name} by bitsandbytes": partial(save_quantized, settings=each) for name, each in SETTINGS.items()},
}
"""By name, what writes a checkpoint of a variant, and returns the model that it stands for."""
STORED = [(variant, name) for variant in VARIANTS for name in WRITERS]
SIZES = [1, 2, 3]
PROMPT = torch.randint(257, (12,), generator=torch.Generator().manual_seed(0)).tolist()
NUM_GENERATED = 4

Tokens = dict[tuple[int, str, str], Result]
"""By size of the group, variant and format, the result of rank 0."""


@pytest.fixture(scope="module")
def oracles(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], FalconForCausalLM]:
    return {}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, oracles: dict[tuple[str, str], FalconForCausalLM]) -> Path:
    """Checkpoints by variant and layout, "plain" among them."""
    root = tmp_path_factory.mktemp("checkpoints")
    for variant, overrides in VARIANTS.items():
        write_checkpoint(root / variant / "plain", build_model(variant, **overrides))
    for variant, name in STORED:
        oracles[variant, name] = WRITERS[name](root / variant / name, variant, **VARIANTS[variant])
    return root


@pytest.fixture(scope="module")
def results(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    """Every group runs every case in one life of its processes."""
    work = {"dtype": "float32", "schedules": ["whole"], "prompts": [PROMPT], "num_generated": NUM_GENERATED}
    cases: dict[tuple[str, str], dict[str, Any]] = {}
    for variant in VARIANTS:
        for name in FORMATS:
            path = str(root / variant / "plain")
            cases[variant, f"--quantize {name}"] = {**work, "path": path, "quantize": name, "backend": "torch"}
    for variant, name in STORED:
        # The reference's output linears are one, of two tensors side by side.
        cases[variant, name] = {**work, "path": str(root / variant / name), "backend": "reference"}
    found: Tokens = {}
    for size in SIZES:
        first = run_group(tmp_path_factory.mktemp("group"), size, list(cases.values()))[0]
        found |= {(size, *key): result for key, result in zip(cases, first, strict=True)}
    return found


def rounded(variant: str, name: str, config: FalconConfig, size: int) -> FalconForCausalLM:
    """The model with linears as each of `size` ranks rounds its slices of them."""
    found, model = weight_format(name, TorchBackend()), build_model(variant, **VARIANTS[variant])
    assert isinstance(found, RoundedFormat)
    for at, linear in linears(model):
        for rank in range(size):
            part = partition(config, rank, size)
            columns = part.dense if at.endswith("attention.dense") else part.ffn if at.endswith("4h_to_h") else None
            with torch.no_grad():
                round_slice(linear.weight, columns or whole(linear.in_features), found)
            if columns is None:
                break
    return model


def round_slice(weight: Tensor, part: Slice, found: RoundedFormat) -> None:
    """Rounds a slice of columns in place, where no rank before has."""
    table = torch.zeros(len(weight), part.size)
    for run in part.runs:
        table[:, run.target : run.target + run.length] = weight[:, run.source : run.source + run.length]
    rounded_slice = found.rounded(table, found.stored(part.size))
    assert isinstance(rounded_slice, DenseWeight)
    values = rounded_slice.values
    for run in part.runs:
        weight[:, run.source : run.source + run.length] = values[:, run.target : run.target + run.length]


@torch.inference_mode()
def check(model: FalconForCausalLM, result: Result) -> None:
    """Tokens are the model's greedy ones, logits its to 1e-4."""
    (tokens,), (logits,) = result["whole"]["tokens"], result["whole"]["logits"]
    expected = model(torch.tensor([tokens])).logits[0].float()
    assert tokens[len(PROMPT) :] == expected[len(PROMPT) - 1 : -1].argmax(-1).tolist()
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", FORMATS)
def test_weights_rounded_at_load(name: str, variant: str, size: int, results: Tokens, root: Path) -> None:
    """Each rank rounds its slices; the model is that of the rounded weights, and not the one before."""
    result, path = results[size, variant, f"--quantize {name}"], root / variant / "plain"
    check(rounded(variant, name, falcon_config(path), size), result)
    with pytest.raises(AssertionError):
        check(build_model(variant, **VARIANTS[variant]), result)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("variant", "name"), STORED)
def test_quantized_checkpoints(
    variant: str, name: str, size: int, results: Tokens, oracles: dict[tuple[str, str], FalconForCausalLM]
) -> None:
    """The model is that of the values that the checkpoint stands for, however it is split."""
    check(oracles[variant, name], results[size, variant, name])
