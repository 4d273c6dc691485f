"""Weights rounded to 8-bit integers, one scale a row (W8A8; inputs are quantized by the kernels)."""

import torch
from torch import Tensor

from peregrine_kernels.native import rounding_library
from peregrine_kernels.weights import ROWS_AT_A_TIME, Int8Weight, as_rounded, row_scales


def quantize_rows(weight: Tensor, largest: int) -> Int8Weight:
    """weight [out, in] -> round(weight / scale) and scales = |row|_max / largest, to the nearest even integer.

    `largest` is the backend's `largest_int8`. By the native kernel where there is one, with the results of torch.
    """
    integers = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scales = torch.empty(len(weight), device=weight.device)
    library = rounding_library(weight.device)
    for rows, out, scale in zip(*(torch.split(x, ROWS_AT_A_TIME) for x in (weight, integers, scales)), strict=True):
        if library is None:
            scale.copy_(row_scales(rows, largest))
            out.copy_((rows.float() / scale[:, None]).round_())
        else:
            source, is_wide = as_rounded(rows)
            outputs = out.data_ptr(), scale.data_ptr()
            library.peregrine_round_int8(source.data_ptr(), is_wide, *source.shape, largest, *outputs)
    return Int8Weight(integers, scales)
