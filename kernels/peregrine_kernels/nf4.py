"""Weights rounded to the 16 values of 4-bit NormalFloat in blocks, as bitsandbytes does (QLoRA, arXiv:2305.14314)."""

import torch
from torch import Tensor

from peregrine_kernels.weights import ROWS_AT_A_TIME, CodebookWeight, pack_nibbles

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Quantiles of a normal distribution, scaled to [-1, 1], zero among them."""


def quantize_nf4(weight: Tensor, group_size: int) -> CodebookWeight:
    """weight [out, in] -> indices of the nearest of NF4, and scales |block|_max of `group_size` inputs, which divides
    `in`."""
    out_features, in_features = weight.shape
    table = torch.tensor(NF4, device=weight.device)
    boundaries = (table[1:] + table[:-1]) / 2
    packed = torch.empty(out_features, in_features // 2, dtype=torch.uint8, device=weight.device)
    scales = torch.empty(out_features, in_features // group_size, device=weight.device)
    for part, codes, scale in zip(*(torch.split(x, ROWS_AT_A_TIME) for x in (weight, packed, scales)), strict=True):
        blocks = part.float().unflatten(1, (-1, group_size))
        scale.copy_(blocks.abs().amax(2))
        nearest = torch.bucketize(blocks / scale.clamp(min=1e-30)[..., None], boundaries, out_int32=True)
        codes.copy_(pack_nibbles(nearest.flatten(1).to(torch.uint8)))
    return CodebookWeight(packed, table, scales, group_size)
