"""Quantized weights in fragment order, against the formulas of `fragment_order.py`."""

import pytest
import torch

from peregrine_kernels.fp8 import quantize_fp8
from peregrine_kernels.gpu.fragment_order import fragment_order
from peregrine_kernels.int4 import quantize_int4
from peregrine_kernels.int8 import quantize_rows
from peregrine_kernels.nf4 import quantize_nf4
from peregrine_kernels.weights import unpack_nibbles


@pytest.mark.parametrize("quantize", [quantize_int4, quantize_nf4])
def test_each_4_bit_code_is_in_its_word(quantize: object) -> None:
    """Row 16 n + 8 rh + g, column 64 c + 16 kt + 4 t + 2 kh + e: nibble rh + 2 kh + 4 e of [n][c][4 g + t][kt]."""
    weight = quantize(torch.randn(40, 96), 32)  # type: ignore[operator]
    codes, ordered = unpack_nibbles(weight.packed), fragment_order(weight)
    assert ordered.words.shape == (3, 2, 32, 4)
    for row in range(40):
        for column in range(96):
            n, rh, g = row // 16, row % 16 // 8, row % 8
            c, kt, t, kh, e = column // 64, column % 64 // 16, column % 16 // 4, column % 4 // 2, column % 2
            word = int(ordered.words[n, c, 4 * g + t, kt])
            assert word >> 4 * (rh + 2 * kh + 4 * e) & 15 == codes[row, column]
            assert ordered.scales[n, column // 32, row % 16] == weight.scales[row, column // 32]


@pytest.mark.parametrize("quantize", [lambda weight: quantize_rows(weight, 127), quantize_fp8], ids=["int8", "fp8"])
def test_each_8_bit_code_is_in_its_word(quantize: object) -> None:
    """Row 16 n + 8 rh + g, column 32 c + 16 kt + 4 t + 2 kh + e: byte kh + 2 e of [n][c][4 g + t][2 kt + rh]."""
    weight = quantize(torch.randn(40, 72))  # type: ignore[operator]
    codes, ordered = weight.values.view(torch.uint8), fragment_order(weight)
    assert ordered.words.shape == (3, 3, 32, 4)
    for row in range(40):
        for column in range(72):
            n, rh, g = row // 16, row % 16 // 8, row % 8
            c, kt, t, kh, e = column // 32, column % 32 // 16, column % 16 // 4, column % 4 // 2, column % 2
            word = int(ordered.words[n, c, 4 * g + t, 2 * kt + rh])
            assert word >> 8 * (kh + 2 * e) & 255 == codes[row, column]
            assert ordered.scales[n, 0, row % 16] == weight.scales[row]


def test_whole_tiles_take_the_bytes_of_the_weight() -> None:
    """Nothing is padded where rows and columns are whole tiles, as in every published Falcon."""
    ordered = fragment_order(quantize_int4(torch.randn(64, 128), 32))
    assert (ordered.words.nbytes, ordered.scales.nbytes) == (64 * 128 // 2, 64 * 4 * 2)


def test_some_rows_share_the_memory() -> None:
    """A panel is a view: its last tile may be cut short by the number of rows alone."""
    ordered = fragment_order(quantize_rows(torch.randn(70, 64), 127))
    part = ordered.rows(slice(32, 70))
    assert part.shape == (38, 64)
    assert part.words.data_ptr() == ordered.words[2].data_ptr()
    assert torch.equal(part.scales, ordered.scales[2:])
