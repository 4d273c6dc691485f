"""The machine code of every kernel at every Falcon's shape, as `make kernels-report` keeps it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkpoints import PUBLISHED
from peregrine_kernels.aot.shapes import SHAPES
from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.partition import partition

ROOT = Path(__file__).parents[3]
ENTRIES: list[dict[str, Any]] = json.loads((ROOT / "benchmarks" / "results" / "kernels-aot.json").read_text())
SHARED_KIB = {"sm_80": 163, "sm_86": 99, "sm_90": 227}
"""Shared memory of a block in KiB (CUDA C++ programming guide, technical specifications per compute capability)."""
ATTENTION = [entry for entry in ENTRIES if entry["kernel"] in ("decode_attention", "prefill_attention")]
PRODUCTS = [entry for entry in ENTRIES if entry["kernel"] == "quantized_gemm"]
INT4 = [entry for entry in PRODUCTS if entry["shape"].startswith("int4")]
IS_8_BIT = ("int8", "float8_e4m3fn")


def named(entry: dict[str, Any]) -> str:
    return " ".join(entry[part] for part in ("kernel", "arch", "model", "shape"))


def report(*options: str) -> Any:
    """In a process of its own: this one has the interpreter's kernels."""
    command = [sys.executable, "-m", "benchmarks.kernels", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=200)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_figures_are_those_of_the_kernels_at_hand() -> None:
    """Every kernel, shape and architecture is there under the key of its source; if not: `make kernels-report`."""
    assert [entry["key"] for entry in ENTRIES] == report("--keys")


@pytest.mark.slow
def test_a_kernel_compiled_again_gives_the_same_figures() -> None:
    """The saved figures are what Triton and ptxas make of the code."""
    again = report("--only", "decode_attention", "falcon-7b")
    assert len(again) == 9
    for entry in again:
        assert entry in ENTRIES


def test_nothing_spills() -> None:
    """No kernel keeps in memory what should be in registers."""
    assert [named(entry) for entry in ENTRIES if entry["spill_bytes"]] == []


def test_shared_memory_is_within_every_device() -> None:
    """A block's shared memory is at most what the device gives to one."""
    assert [named(entry) for entry in ENTRIES if entry["shared_bytes"] > SHARED_KIB[entry["arch"]] * 1024] == []


def test_attention_multiplies_on_tensor_cores() -> None:
    """In decode as in prefill, for every number of heads."""
    assert len(ATTENTION) >= 2 * 3 * len(SHAPES)
    assert [named(entry) for entry in ATTENTION if not entry["tensor_core_instructions"]] == []


def test_attention_reads_k_and_v_128_bits_at_a_time() -> None:
    """Narrower loads are those of block tables, lengths, slopes, and the scales of 8-bit pages."""
    for entry in ATTENTION:
        is_8_bit = entry["shape"].endswith(IS_8_BIT)
        assert entry["wide_loads"] >= (7 if is_8_bit else 20), named(entry)
        assert entry["narrow_loads"] <= (40 if is_8_bit else 12), named(entry)


def test_quantized_weights_are_multiplied_on_tensor_cores() -> None:
    """Every kind and number of rows; words are read 128 bits at a time."""
    assert len(PRODUCTS) == 3 * 3 * (5 + 7)
    assert [named(entry) for entry in PRODUCTS if not entry["tensor_core_instructions"]] == []
    assert [named(entry) for entry in PRODUCTS if entry["wide_loads"] < 2] == []


def test_values_of_4_bits_stay_in_registers() -> None:
    """No loop stores them to shared memory: what two stores hold are the scales of 128 rows. The values of 64 inputs
    would take 16 stores."""
    assert len(INT4) == 3 * 3 * (2 + 4)
    assert [named(entry) for entry in INT4 if entry["loop_shared_stores"] > 2] == []


def test_worse_figures_are_found() -> None:
    """More registers, spills or shared memory than before are told; less, and new kernels, are not."""
    from benchmarks.kernels import regressions

    old = ENTRIES[0]
    worse = {**old, "registers": old["registers"] * 2, "spill_bytes": 8}
    assert len(regressions([old], [worse])) == 2
    assert regressions([worse], [old]) == regressions([], [worse]) == []


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.model in PUBLISHED], ids=lambda shape: shape.name)
def test_shapes_are_those_of_the_published_models(shape: Any) -> None:
    """A rank's share as the server divides a model."""
    config = FalconConfig.from_hf(PUBLISHED[shape.model])
    part = partition(config, 0, shape.num_ranks)
    assert (shape.num_layers, shape.hidden_size, shape.head_dim) == (
        config.num_layers,
        config.hidden_size,
        config.head_dim,
    )
    assert (shape.num_heads, shape.num_kv_heads) == (part.num_heads, part.num_kv_heads)
    assert (shape.ffn_size, shape.vocab_size, shape.qkv_size) == (part.ffn.size, part.vocab.size, part.qkv.size)
    assert (shape.is_parallel, shape.num_layer_norms) == (config.is_parallel, config.num_layer_norms)
    assert shape.has_alibi == config.has_alibi
