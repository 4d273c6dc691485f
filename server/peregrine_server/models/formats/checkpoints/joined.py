"""Weights of several linears as one."""

from collections.abc import Sequence
from functools import partial

import torch

from peregrine_kernels import DenseWeight
from peregrine_kernels.weights import CodebookWeight, Int4Weight, QuantizedWeight, dequantized


def joined(
    read: Sequence[QuantizedWeight | DenseWeight], axis: int, dtype: torch.dtype
) -> QuantizedWeight | DenseWeight:
    """Weights side by side (axis 1), or one below the other (axis 0); dense, in `dtype`, unless all have 4 bits and
    groups of one size."""
    if len(read) == 1:
        return read[0]
    if all(isinstance(each, Int4Weight) for each in read):
        return _joined_int4([each for each in read if isinstance(each, Int4Weight)], axis)
    if all(isinstance(each, CodebookWeight) for each in read):
        weights = [each for each in read if isinstance(each, CodebookWeight)]
        if all(torch.equal(each.table, weights[0].table) for each in weights):
            return _joined_codebook(weights, axis)
    tables = (each.values if isinstance(each, DenseWeight) else dequantized(each, dtype) for each in read)
    return DenseWeight(torch.cat(list(tables), axis))


def _joined_int4(read: list[Int4Weight], axis: int) -> Int4Weight:
    join = partial(torch.cat, dim=axis)
    zeros = [each.zeros for each in read if each.zeros is not None]
    packed, scales = join([each.packed for each in read]), join([each.scales for each in read])
    return Int4Weight(packed, scales, read[0].group_size, join(zeros) if zeros else None)


def _joined_codebook(read: list[CodebookWeight], axis: int) -> CodebookWeight:
    packed, scales = (torch.cat(each, axis) for each in ([w.packed for w in read], [w.scales for w in read]))
    return CodebookWeight(packed, read[0].table, scales, read[0].group_size)
