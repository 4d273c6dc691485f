"""Fragment order taken back, under Triton's interpreter."""

import pytest
import torch

from peregrine_kernels.fp8 import quantize_fp8
from peregrine_kernels.gpu.fragment_order import fragment_order
from peregrine_kernels.gpu.row_major import row_major_launch


@pytest.mark.parametrize("shape", [(16, 32), (150, 208), (33, 16), (64, 1088)])
def test_codes_are_back_in_their_rows(shape: tuple[int, int]) -> None:
    """Whole tiles and chunks, and such as end within them."""
    weight = quantize_fp8(torch.randn(shape))
    out = torch.empty(shape, dtype=torch.float8_e4m3fn)
    row_major_launch(fragment_order(weight), out)()
    assert torch.equal(out.view(torch.uint8), weight.values.view(torch.uint8))


def test_some_rows_of_a_weight() -> None:
    """A panel's, and nothing behind them."""
    weight = quantize_fp8(torch.randn(70, 64))
    out = torch.zeros(40, 64, dtype=torch.float8_e4m3fn)
    row_major_launch(fragment_order(weight).rows(slice(32, 70)), out[:38])()
    assert torch.equal(out[:38].view(torch.uint8), weight.values[32:].view(torch.uint8))
    assert not out[38:].float().any()
