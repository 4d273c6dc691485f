"""Weights rounded to 4-bit integers in groups: a scale of either sign, chosen by the squared error of the group."""

import torch
from torch import Tensor

from peregrine_kernels.native import rounding_library
from peregrine_kernels.weights import INT4_ZERO, ROWS_AT_A_TIME, Int4Weight, as_rounded, pack_nibbles

LOWEST, HIGHEST = -INT4_ZERO, 15 - INT4_ZERO
DIVISORS = (-7.0, -7.6, -8.2, -8.9, -9.7, -10.7)
"""The group's extreme value is stood for by one of these codes, clamped: as the lowest code, which has no positive
counterpart, whatever its sign. Six of them and a least-squares step leave, in groups of 64, 9.04 % of a normal
distribution's norm and 12.21 % of a Student t's with 5 degrees of freedom; 60 of them 8.99 % and 12.18 %, in 6 times
the time; the nearest scale to absmax / 7 leaves 10.78 % and 14.63 %."""
GROUPS_AT_A_TIME = 4096
"""By torch: in groups of 64 their float32 values and temporaries stay in a core's L2 and L3 caches, 20 ns a weight."""
NATIVE_SIZES = 8, 16, 32, 64
"""Sizes of a group that the native kernel takes."""
SMALLEST = 1e-30
"""Groups below it are zeros: their scale would have no reciprocal."""


def quantize_int4(weight: Tensor, group_size: int) -> Int4Weight:
    """weight [out, in] -> 4-bit integers and bfloat16 scales of groups of `group_size` inputs, a power of two from 8 on
    that divides `in`.

    By the native kernel where there is one, with the results of torch to the bit.
    """
    out_features, in_features = weight.shape
    packed = torch.empty(out_features, in_features // 2, dtype=torch.uint8, device=weight.device)
    scales = torch.empty(out_features, in_features // group_size, dtype=torch.bfloat16, device=weight.device)
    library = rounding_library(weight.device) if group_size in NATIVE_SIZES else None
    step = max(1, GROUPS_AT_A_TIME // scales.shape[1]) if library is None else ROWS_AT_A_TIME
    for part, codes, scale in zip(*(torch.split(x, step) for x in (weight, packed, scales)), strict=True):
        if library is None:
            _round(part, codes, scale)
        else:
            divisors, (rows, is_wide) = torch.tensor(DIVISORS), as_rounded(part)
            sizes, search = (scale.numel(), group_size), (divisors.data_ptr(), len(DIVISORS))
            library.peregrine_round_int4(rows.data_ptr(), is_wide, *sizes, *search, codes.data_ptr(), scale.data_ptr())
    return Int4Weight(packed, scales, group_size)


def _round(weight: Tensor, packed: Tensor, scales: Tensor) -> None:
    groups = weight.float().unflatten(1, (scales.shape[1], -1)).flatten(0, 1)
    found = _refine(groups, _search(groups))
    packed.copy_(pack_nibbles(_codes(groups, found).sub_(LOWEST).to(torch.uint8).view(weight.shape)))
    scales.copy_(found.view(scales.shape))


def _search(groups: Tensor) -> Tensor:
    """groups float32[G, n] -> float32[G, 1]: the scale, as bfloat16 has it, with the least squared error."""
    extreme = groups.gather(1, groups.abs().argmax(1, keepdim=True))
    extreme.masked_fill_(extreme.abs() < SMALLEST, 1.0)
    best, least = extreme, torch.full_like(extreme, torch.inf)
    for divisor in DIVISORS:
        scale = _as_stored(extreme / divisor)
        error = _squared_error(groups, scale)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


def _refine(groups: Tensor, scale: Tensor) -> Tensor:
    """The scale that fits the codes of `scale` best, where it is better."""
    codes = _codes(groups, scale)
    norm = _sum(codes.square())
    fitted = _as_stored(_sum(codes * groups) / norm)
    is_usable = (norm > 0) & (fitted.abs() >= SMALLEST)
    fitted = torch.where(is_usable, fitted, scale)
    return torch.where(_squared_error(groups, fitted) < _squared_error(groups, scale), fitted, scale)


def _codes(groups: Tensor, scale: Tensor) -> Tensor:
    """float32[G, n] of integers LOWEST..HIGHEST."""
    return torch.mul(groups, scale.reciprocal()).round_().clamp_(LOWEST, HIGHEST)


def _squared_error(groups: Tensor, scale: Tensor) -> Tensor:
    return _sum(_codes(groups, scale).mul_(scale).sub_(groups).square_())


def _sum(terms: Tensor) -> Tensor:
    """terms [G, n], which are overwritten -> [G, 1], added in the order of the native kernel: halves to halves."""
    while terms.shape[1] > 1:
        first, second = terms.chunk(2, dim=1)
        terms = first.add_(second)
    return terms


def _as_stored(scale: Tensor) -> Tensor:
    return scale.bfloat16().float()
