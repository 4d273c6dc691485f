"""Checkpoints of bitsandbytes that lie, their settings and sizes, and what its own package reads of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bitsandbytes_checkpoints import LAYOUTS, BitsAndBytes
from bitsandbytes_package import read_quantized
from lying_checkpoints import AT, Change, failure, refusal, replaced, rewrite, set_first, set_setting
from peregrine_server.models.formats.checkpoints.bitsandbytes import read_scheme
from peregrine_server.models.formats.interface import ALL_KERNELS
from peregrine_server.models.registry import load_format
from quantized_checkpoints import linears, write_quantized

STATE = "weight.quant_state.bitsandbytes__nf4"


def stated(key: str, value: object) -> Change:
    """Another value in the JSON of the linear at AT."""

    def change(tensors: dict[str, Tensor]) -> None:
        state = json.loads(bytes(tensors[f"{AT}.{STATE}"].tolist())) | {key: value}
        tensors[f"{AT}.{STATE}"] = torch.tensor(list(json.dumps(state).encode())).byte()

    return change


NESTED = "bitsandbytes nested nf4"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("bitsandbytes int8", set_first("SCB", float("nan")), "SCB holds numbers that are not finite"),
        ("bitsandbytes int8", set_first("weight_format", 1), "weight_format says that values are not in rows"),
        ("bitsandbytes nf4", set_first("weight.absmax", float("inf")), "weight.absmax holds numbers that are not"),
        (NESTED, set_first("weight.nested_absmax", float("nan")), "weight.nested_absmax holds numbers that are not"),
        (NESTED, set_first("weight.nested_quant_map", float("nan")), "weight.nested_quant_map holds numbers that"),
        (NESTED, set_first("weight.quant_map", float("nan")), "weight.quant_map holds numbers that are not finite"),
        (NESTED, stated("shape", [448, 112]), f"{STATE} says that shape is [448, 112], not [112, 448]"),
        (NESTED, stated("blocksize", 128), f"{STATE} says that blocksize is 128, not 64"),
        (NESTED, stated("nested_blocksize", 64), f"{STATE} says that nested_blocksize is 64, not 256"),
        (NESTED, stated("nested_offset", None), f"{STATE} says that nested_offset is None, not a number"),
        (NESTED, stated("nested_offset", float("nan")), f"{STATE} says that nested_offset is nan, not a number"),
        (NESTED, stated("padding", "x" * 5000), f"{STATE} is not the JSON of a weight's state"),
        (NESTED, replaced(STATE, torch.zeros(9, dtype=torch.uint8)), f"{STATE} is not the JSON of a weight's state"),
        (NESTED, replaced("weight", torch.zeros(9, 1, dtype=torch.uint8)), "weight has shape [9, 1], not [25088, 1]"),
        (NESTED, lambda each: each.pop(f"{AT}.weight.nested_absmax"), "lacks tensor"),
        (NESTED, replaced("weight.absmax", torch.ones(784)), "weight.absmax is not of type U8"),
        (NESTED, stated("nested_offset", 10**400), f"{STATE} says that nested_offset is 1"),
        ("bitsandbytes fp4", lambda each: each.pop(f"{AT}.weight.absmax"), "lacks tensor"),
        ("bitsandbytes int8", lambda each: each.pop(f"{AT}.SCB"), "lacks tensor"),
        ("bitsandbytes nf4", replaced("weight.nested_absmax", torch.ones(1)), "is of a layout that is not supported"),
    ],
)
def test_lying_tensors_are_named(name: str, change: Change, message: str, tmp_path: Path) -> None:
    """In one line each."""
    write_quantized(tmp_path, "7b", LAYOUTS[name])
    rewrite(tmp_path, change)
    error = failure(tmp_path)
    assert message in error
    assert "h.1.mlp.dense_4h_to_h" in error


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("load_in_8bit", True, "load_in_4bit True"),
        ("load_in_4bit", False, "load_in_4bit False"),
        ("load_in_4bit", "yes", "load_in_4bit 'yes'"),
        ("bnb_4bit_quant_type", "int4", "bnb_4bit_quant_type 'int4'"),
        ("bnb_4bit_use_double_quant", 1, "bnb_4bit_use_double_quant 1"),
        ("bnb_4bit_quant_storage", "bfloat16", "bnb_4bit_quant_storage 'bfloat16'"),
    ],
)
def test_what_is_not_read_is_refused(key: str, value: object, named: str) -> None:
    """In one line that names the key."""
    settings: dict[str, Any] = {**BitsAndBytes().quantization_config(), key: value}
    assert named in refusal(read_scheme, settings)


@pytest.mark.parametrize(
    ("key", "value", "missing"),
    [
        ("bnb_4bit_quant_type", "fp4", "weight.quant_state.bitsandbytes__fp4"),
        ("bnb_4bit_use_double_quant", False, "weight.absmax is not of type F32"),
    ],
)
def test_settings_of_another_checkpoint_are_refused(key: str, value: object, missing: str, tmp_path: Path) -> None:
    """With the first tensor that they do not fit."""
    write_quantized(tmp_path, "7b", LAYOUTS[NESTED])
    set_setting(tmp_path, key, value)
    assert missing in failure(tmp_path)


def test_linears_that_are_left_out_are_named(tmp_path: Path) -> None:
    """A model of which some linears have 16 bits is refused."""
    write_quantized(tmp_path, "7b", LAYOUTS["bitsandbytes nf4"])
    set_setting(tmp_path, "llm_int8_skip_modules", ["lm_head", "dense_4h_to_h"])
    assert "llm_int8_skip_modules 'dense_4h_to_h' leaves h.0.mlp.dense_4h_to_h in 16 bits" in failure(tmp_path)


@pytest.mark.parametrize(
    ("name", "num_bytes", "option"),
    [
        ("bitsandbytes int8", 10 * (128 + 4), "int8"),
        ("bitsandbytes nf4", 10 * (64 + 2 * 4) + 64, "nf4"),
        (NESTED, 10 * (64 + 2 * 4) + 64, "nf4"),
        ("bitsandbytes fp4", 10 * (64 + 2 * 4) + 64, "bitsandbytes-fp4"),
    ],
)
def test_sizes_and_names(name: str, num_bytes: int, option: str, tmp_path: Path) -> None:
    """Nested scales are kept as numbers, and 4-bit codes beside a table; --quantize may name what the weights are."""
    write_quantized(tmp_path, "7b", LAYOUTS[name])
    assert load_format(tmp_path, option, ALL_KERNELS).num_bytes(10, 128, "bfloat16") == num_bytes
    with pytest.raises(ValueError, match=r"^--quantize fp8: the checkpoint's weights are bitsandbytes [^\n]*$"):
        load_format(tmp_path, "fp8")


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_package_reads_what_the_tests_pack(name: str, tmp_path: Path) -> None:
    """To the values that the tests' own packing, from the definition, stands for."""
    model = write_quantized(tmp_path, "7b", LAYOUTS[name])
    for (_, read), (_, packed) in zip(linears(read_quantized(tmp_path)), linears(model), strict=True):
        torch.testing.assert_close(read.weight, packed.weight, atol=1e-6, rtol=1e-6)
