"""Memory for the KV cache: what is left of a device, and what is said where it is too little."""

from dataclasses import replace

import pytest

from peregrine_server.execution.memory_budget import (
    FEW_ROWS,
    GIB,
    SLACK_BYTES,
    MemoryProfile,
    OutOfMemory,
    check_fits,
    graph_bytes,
    num_blocks_that_fit,
    out_of_memory,
)
from peregrine_server.models.interface import Footprint
from peregrine_server.protocol import CacheSpec

A10G = MemoryProfile(24 * GIB, 0.9, others=GIB, weights=14 * GIB, activations=GIB, graphs=GIB // 2)


def test_the_cache_gets_what_everything_else_leaves() -> None:
    """The fraction is of the whole device, and all that others take counts against it."""
    assert A10G.kv_bytes == int(24 * GIB * 0.9) - (16 * GIB + GIB // 2)
    assert replace(A10G, fraction=1.0).kv_bytes - A10G.kv_bytes == 24 * GIB - int(24 * GIB * 0.9)


def test_no_room_is_no_negative_room() -> None:
    """A device that is too small leaves 0 bytes."""
    assert replace(A10G, weights=30 * GIB).kv_bytes == 0


def test_an_error_names_numbers_and_flags() -> None:
    """The error names the measured sizes, and the flags to change."""
    words = A10G.describe()
    for part in ("24.0 GiB", "--cuda-memory-fraction 0.9", "14.0 GiB", "--max-batch-prefill-tokens"):
        assert part in words
    error = str(out_of_memory("cuda:0", 24 * GIB, 3 * GIB, 26 * GIB, 1))
    for part in ("cuda:0", "24.0 GiB", "3.0 GiB", "26.0 GiB", "--num-shard 1"):
        assert part in error
    assert "\n" not in error


def test_a_cpu_has_nothing_to_say_of_it() -> None:
    """Where nothing was measured, nothing is added to the error."""
    assert MemoryProfile(GIB, 1.0, 0, 0, 0, 0).describe() == ""


def test_shards_share_half_of_a_cpus_free_memory() -> None:
    """The other half is for activations and others."""
    assert MemoryProfile.of_cpu(12 * GIB, 1.0, 3).kv_bytes == 2 * GIB


def test_graphs_keep_the_logits_of_all_sizes() -> None:
    """Each captured size keeps ten bytes a logit; all sizes together have less than four times the largest's rows."""
    assert graph_bytes(128, 65_024) == SLACK_BYTES + 4 * 128 * 65_024 * 10


def test_graphs_have_a_scratch_for_each_branch() -> None:
    """Attention and MLP dequantize at once, each into memory of its own; of up to 256 rows nothing is dequantized."""
    assert graph_bytes(257, 1000, 10**6) - graph_bytes(257, 1000) == 2 * 10**6
    assert graph_bytes(256, 1000, 10**6) == graph_bytes(256, 1000)


def test_few_rows_are_the_kernels() -> None:
    """Known without torch as the GPU's linears choose."""
    kernels = pytest.importorskip("peregrine_kernels.gpu.quantized_gemm")
    assert kernels.MAX_ROWS == FEW_ROWS


def test_blocks_that_fit_are_whole_and_could_be_used() -> None:
    """A remainder of a block is no block; state comes off first; no more blocks than all sequences could fill."""

    def blocks(num_bytes: int, spec: CacheSpec) -> int:
        return num_blocks_that_fit(spec, num_bytes, max_batch_size=2, max_total_tokens=100, block_size=64)

    assert blocks(2 * 64 * 10 - 1, CacheSpec(10)) == 1
    assert blocks(2 * 64 * 10 + 99, CacheSpec(10, state_bytes_per_slot=50)) == 1
    assert blocks(-1, CacheSpec(10)) == 0
    assert blocks(10**9, CacheSpec(10)) == 2 * 2
    assert blocks(0, CacheSpec(0)) == 0


def test_what_cannot_fit_is_told_with_the_bytes_that_were_free() -> None:
    """Weights of all shards, and whole blocks of the longest request on each, to the byte."""
    size = Footprint(weight_bytes=1000, unread_bytes=0, cache=CacheSpec(10), activation_bytes_per_token=0)
    needed = 3 * (1000 + 128 * 10)
    check_fits(size, needed, num_tokens=65, block_size=64, num_shards=3)
    with pytest.raises(OutOfMemory, match=r"^too little memory: [^\n]*--quantize[^\n]*$") as caught:
        check_fits(size, needed - 1, num_tokens=65, block_size=64, num_shards=3)
    assert caught.value.free_bytes == needed - 1
