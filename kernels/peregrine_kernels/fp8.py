"""Weights rounded to 8-bit floating-point numbers (e4m3), one scale a row."""

import torch
from torch import Tensor

from peregrine_kernels.weights import ROWS_AT_A_TIME, Float8Weight, row_scales

LARGEST = 448.0
"""The largest finite number of e4m3."""


def quantize_fp8(weight: Tensor) -> Float8Weight:
    """weight [out, in] -> weight / scale in float8_e4m3fn and scales = |row|_max / 448."""
    values = torch.empty(weight.shape, dtype=torch.float8_e4m3fn, device=weight.device)
    scales = row_scales(weight, LARGEST)
    for out, rows, scale in zip(*(torch.split(x, ROWS_AT_A_TIME) for x in (values, weight, scales)), strict=True):
        # Beyond the largest number the cast gives NaN, and the quotient may be one float32 beyond it.
        out.copy_((rows.float() / scale[:, None]).clamp_(-LARGEST, LARGEST))
    return Float8Weight(values, scales)
