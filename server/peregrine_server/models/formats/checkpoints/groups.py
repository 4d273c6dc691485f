"""Weights that are stored in groups of inputs with a scale each, sliced for a rank: groups stay whole, or are made
smaller. A smaller group with the same scale stands for the same values, so any slice is exact.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from peregrine_server.models.formats.quantized import KEPT_GROUP
from peregrine_server.models.loading.slices import Run, Slice
from peregrine_server.models.loading.weights import TensorSource

WHOLE_ROW = 2**30
"""Size of the only group of a row."""


def kept_group(group_size: int, parts: Sequence[Slice]) -> int:
    """The size of a group on the device: divides that of the checkpoint, and every run of slices of inputs."""
    bounds = [each for part in parts for run in part.runs for each in (run.source, run.target, run.length)]
    return math.gcd(KEPT_GROUP, group_size, *bounds, *(part.size for part in parts))


def words_of(part: Slice, per_word: int) -> Slice | None:
    """A slice of values as one of words of several; None if it would cut a word."""
    if any(each % per_word for run in part.runs for each in (run.source, run.target, run.length)):
        return None
    runs = (Run(run.source // per_word, run.target // per_word, run.length // per_word) for run in part.runs)
    return Slice(part.size // per_word, tuple(runs))


def read_groups(
    weights: TensorSource, name: str, part: Slice, group_size: int, kept: int, dtype: torch.dtype
) -> Tensor:
    """The values of groups of `kept` in a slice of inputs [N, part.size / kept], of a tensor [N, groups of `group_size`
    inputs]; zeros in padding."""
    groups = [range(run.source // group_size, -(-(run.source + run.length) // group_size)) for run in part.runs]
    starts = list(accumulate(map(len, groups), initial=0))
    runs = tuple(Run(each.start, start, len(each)) for each, start in zip(groups, starts, strict=False))
    values = weights.columns((name, Slice(starts[-1], runs)), dtype=dtype)
    # Where the values of checkpoint's groups, of which these are some, would begin.
    origins = [start - each.start for each, start in zip(groups, starts, strict=False)]
    return spread(values, part, group_size, kept, origins)


def spread(values: Tensor, part: Slice, group_size: int, kept: int, origins: Sequence[int]) -> Tensor:
    """The same of values [N, groups] at hand: those of the checkpoint's group g are in column origin + g, by run."""
    out = values.new_zeros(len(values), part.size // kept)
    for run, origin in zip(part.runs, origins, strict=True):
        inputs = torch.arange(run.source, run.source + run.length, kept, device=values.device)
        out[:, run.target // kept : (run.target + run.length) // kept] = values[:, inputs // group_size + origin]
    return out


def sources(part: Slice) -> Tensor:
    """int64[part.size]: where each element is in the checkpoint, -1 in padding."""
    out = torch.full((part.size,), -1)
    for run in part.runs:
        out[run.target : run.target + run.length] = torch.arange(run.source, run.source + run.length)
    return out


def take_rows(values: Tensor, part: Slice) -> Tensor:
    """[N, groups] -> [part.size, groups]: a slice of rows, zeros in padding."""
    out = values.new_zeros(part.size, values.shape[1])
    for run in part.runs:
        out[run.target : run.target + run.length] = values[run.source : run.source + run.length]
    return out


def clear_padding(values: Tensor, part: Slice) -> Tensor:
    """values [N, part.size], zero outside of the slice's runs; overwritten."""
    is_padding = torch.ones(part.size, dtype=torch.bool, device=values.device)
    for run in part.runs:
        is_padding[run.target : run.target + run.length] = False
    return values.masked_fill_(is_padding, 0)
