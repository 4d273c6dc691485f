"""Slices of inputs that are stored in groups."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from peregrine_server.models.formats.checkpoints.groups import (
    clear_padding,
    kept_group,
    read_groups,
    sources,
    take_rows,
    words_of,
)
from peregrine_server.models.loading.slices import Run, Slice, whole
from peregrine_server.models.loading.weights import TensorSource

PART = Slice(160, (Run(32, 0, 32), Run(96, 64, 64)))
"""Two runs of inputs, zeros between and after them."""


class Source:
    """Tensors by name."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def columns(self, part: tuple[str, Slice], dtype: torch.dtype) -> Tensor:
        name, columns = part
        out = torch.zeros(len(self._tensors[name]), columns.size, dtype=dtype)
        for run in columns.runs:
            out[:, run.target : run.target + run.length] = self._tensors[name][:, run.source : run.source + run.length]
        return out


def test_groups_on_a_device_divide_every_run() -> None:
    """Larger groups are kept as several of 64 at most, and of what the slices' bounds leave whole."""
    assert kept_group(128, [whole(512)]) == 64
    assert kept_group(32, [whole(512)]) == 32
    assert kept_group(128, [whole(512), PART]) == 32


def test_values_of_groups_follow_their_inputs() -> None:
    """Each group on the device has the value of the checkpoint's group that its inputs are in; padding has zeros."""
    scales = torch.randn(3, 4)
    source = cast(TensorSource, Source({"scales": scales}))
    found = read_groups(source, "scales", PART, group_size=64, kept=32, dtype=torch.float32)
    expected = torch.stack((scales[:, 0], torch.zeros(3), scales[:, 1], scales[:, 2], torch.zeros(3)), dim=1)
    assert torch.equal(found, expected)


def test_rows_follow_their_outputs() -> None:
    """A slice of rows, zeros elsewhere."""
    values = torch.randn(8, 2)
    found = take_rows(values, Slice(5, (Run(2, 0, 2), Run(7, 3, 1))))
    assert torch.equal(found, torch.stack((values[2], values[3], torch.zeros(2), values[7], torch.zeros(2))))


def test_sources_of_a_slice() -> None:
    """Padding has none."""
    part = Slice(5, (Run(2, 0, 2), Run(7, 3, 1)))
    assert sources(part).tolist() == [2, 3, -1, 7, -1]


def test_words_are_not_cut() -> None:
    """A slice that begins or ends within a word has none."""
    assert words_of(PART, 8) == Slice(20, (Run(4, 0, 4), Run(12, 8, 8)))
    assert words_of(Slice(8, (Run(4, 0, 8),)), 8) is None


def test_padding_is_cleared() -> None:
    """Values outside of the runs are zero, the others as they were."""
    values = torch.randn(2, 5)
    expected = values.clone()
    expected[:, [2, 4]] = 0
    assert torch.equal(clear_padding(values, Slice(5, (Run(2, 0, 2), Run(7, 3, 1)))), expected)
