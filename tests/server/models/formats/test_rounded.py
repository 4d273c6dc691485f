"""Formats that are rounded at load."""

from pathlib import Path

import pytest
import torch
from benchmarks.quality import HELD_OUT, nats

from checkpoints import build_model, write_checkpoint
from cpu_backends import native
from falcons import load, model_context
from peregrine_kernels import DenseWeight, Int8Weight
from peregrine_router.launch.model_files import demo_path
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.models.formats.interface import ALL_KERNELS, CPU_KERNELS, KernelsOfDevice
from peregrine_server.models.formats.packing import DENSE, FP8, FP8_W8A8, INT8, Packing
from peregrine_server.models.formats.registry import FORMATS, weight_format
from peregrine_server.models.formats.rounded import RoundedFormat


def rounded_format(name: str, kernels: KernelsOfDevice = CPU_KERNELS) -> RoundedFormat:
    found = weight_format(name, kernels)
    assert isinstance(found, RoundedFormat)
    return found


def test_widths_that_64_does_not_divide_have_smaller_groups() -> None:
    """The largest of 64, 32, 16 and 8 that divides them, and no groups where none does."""
    stored = [rounded_format("int4").stored(width) for width in (4544, 96, 80, 72, 70)]
    assert stored == [Packing("int4", size) for size in (64, 32, 16, 8)] + [DENSE]


@pytest.mark.parametrize("name", ["int4", "nf4"])
def test_the_head_of_4_bit_formats_has_8_where_there_are_kernels(name: str) -> None:
    """Elsewhere it stays as it is, and may be the embedding table."""
    table = torch.randn(6, 64).bfloat16()
    head = rounded_format(name).from_dense(table)
    assert isinstance(head, Int8Weight)
    assert rounded_format(name).head_num_bytes(6, 64, "bfloat16") == INT8.num_bytes(6, 64, "bfloat16", CPU_KERNELS)
    none = rounded_format(name, KernelsOfDevice(0, False, 0, False, dequantizes=True))
    head = none.from_dense(table)
    assert isinstance(head, DenseWeight)
    assert head.values is table
    assert none.head_num_bytes(6, 64, "bfloat16") is None


def test_the_head_of_w8a8_does_not_round_its_inputs() -> None:
    """It has few rows, whose weights take the time."""
    found = rounded_format("fp8-w8a8", ALL_KERNELS)
    assert found.stored(64) == FP8_W8A8
    assert found.head(64) == FP8


@pytest.mark.parametrize("name", FORMATS)
def test_weights_have_the_bytes_that_are_told(name: str) -> None:
    """As the backend's kernels let them be kept."""
    found = rounded_format(name)
    weight = found.from_dense(torch.randn(6, 64).bfloat16())
    assert found.head_num_bytes(6, 64, "bfloat16") == INT8.num_bytes(*weight.shape, "bfloat16", CPU_KERNELS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_rounded_model_is_near_the_exact_one(name: str, tmp_path: Path) -> None:
    """Logits of a model on the CPU's own backend differ by the error of rounding: less than their deviation, 1."""
    path = write_checkpoint(tmp_path, build_model("40b", torch.bfloat16))
    hidden = torch.randn(5, 160).bfloat16()
    exact, rounded = (load(path, model_context(torch.bfloat16, quantize=each)) for each in (None, name))
    difference = (exact.logits(hidden) - rounded.logits(hidden)).abs()
    assert 0 < difference.mean() < 0.1


@pytest.mark.slow
@native
@pytest.mark.parametrize(("name", "limit"), [("int8", 1.005), ("fp8", 1.005), ("int4", 1.04), ("nf4", 1.04)])
def test_rounded_weights_predict_nearly_as_well(name: str, limit: float) -> None:
    """On held-out text the demo needs at most half a per cent more bits with 8-bit weights, 4 % with 4-bit ones."""
    text = HELD_OUT.read_text()[:10_000]
    ids = torch.tensor(Tokenizer.load(demo_path()).encode(text))
    exact, rounded = (
        nats(load(demo_path(), model_context(torch.bfloat16, quantize=each)), ids) for each in (None, name)
    )
    assert abs(rounded - exact) > 0
    assert rounded < limit * exact
