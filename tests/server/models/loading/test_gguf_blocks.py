"""Blocks of every type that is read."""

import gguf
import numpy as np
import pytest
import torch

from peregrine_server.models.loading.gguf_blocks import GROUP, dequantize, read_codes
from peregrine_server.models.loading.gguf_header import BLOCK_TYPES, FOUR_BITS


def random_rows(name: str) -> np.ndarray:
    """uint8[5, bytes of 6 blocks] of any bits: numbers that are not finite among them."""
    size = next(block.num_bytes for block in BLOCK_TYPES.values() if block.name == name)
    return np.random.default_rng(0).integers(0, 256, (5, 6 * size), dtype=np.uint8)


@pytest.mark.parametrize("name", [block.name for block in BLOCK_TYPES.values()])
def test_values_are_those_of_the_package_to_the_bit(name: str) -> None:
    """Whatever the bits are."""
    rows = random_rows(name)
    kind = gguf.GGMLQuantizationType[name]
    stored = rows.view(np.float32) if name == "F32" else rows.view(np.float16) if name == "F16" else rows
    with np.errstate(invalid="ignore", over="ignore"):
        expected = gguf.quants.dequantize(stored, kind)
    np.testing.assert_array_equal(dequantize(name, torch.from_numpy(rows)).numpy(), expected)


@pytest.mark.parametrize("name", FOUR_BITS)
def test_codes_have_four_bits_and_a_scale_for_32(name: str) -> None:
    """So that they can be kept as they are."""
    rows = torch.from_numpy(random_rows(name))
    codes, scales, offsets = read_codes(name, rows)
    assert codes.max() < 16
    assert scales.shape == (5, codes.shape[1] // GROUP)
    assert (offsets is None) == (name in ("Q4_0", "IQ4_NL"))
