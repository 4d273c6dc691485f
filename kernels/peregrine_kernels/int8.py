"""Weights rounded to 8-bit integers, one scale a row (W8A8; inputs are quantized by the kernels)."""

import torch
from torch import Tensor

from peregrine_kernels.weights import ROWS_AT_A_TIME, Int8Weight, row_scales


def quantize_rows(weight: Tensor, largest: int) -> Int8Weight:
    """weight [out, in] -> round(weight / scale) and scales = |row|_max / largest, to the nearest even integer.

    `largest` is the backend's `largest_int8`.
    """
    integers = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scales = row_scales(weight, largest)
    for out, rows, scale in zip(*(torch.split(x, ROWS_AT_A_TIME) for x in (integers, weight, scales)), strict=True):
        out.copy_((rows.float() / scale[:, None]).round_())
    return Int8Weight(integers, scales)
