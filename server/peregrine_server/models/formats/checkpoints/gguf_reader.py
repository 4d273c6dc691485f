"""A rank's slices of a GGUF file's linears as weights."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from peregrine_kernels import DenseWeight
from peregrine_kernels.weights import (
    INT4_ZERO,
    ROWS_AT_A_TIME,
    CodebookWeight,
    Int4Weight,
    QuantizedWeight,
    pack_nibbles,
)
from peregrine_server.models.formats.checkpoints.checks import fault_of_numbers
from peregrine_server.models.formats.checkpoints.gguf_types import GROUP
from peregrine_server.models.formats.checkpoints.groups import kept_group, spread
from peregrine_server.models.formats.checkpoints.joined import joined
from peregrine_server.models.formats.dense import read_dense
from peregrine_server.models.formats.packing import Packing
from peregrine_server.models.loading.gguf_blocks import CODEBOOK, Codes, read_codes
from peregrine_server.models.loading.gguf_header import BY_NAME, FOUR_BITS
from peregrine_server.models.loading.gguf_layout import blocks_name
from peregrine_server.models.loading.slices import Run, Slice, whole
from peregrine_server.models.loading.tensor_file import CheckpointError
from peregrine_server.models.loading.weights import TensorSource


def read_linears(
    types: Mapping[str, str], packing: Packing, weights: TensorSource, parts: tuple[tuple[str, Slice], ...], axis: int
) -> QuantizedWeight | DenseWeight:
    """The linears' slices as `WeightFormat.load` takes them. What no packed weight stands for exactly is dense."""
    linears = {
        name: StoredLinear(weights, name, types[name], part, axis) for name, part in parts if types[name] in FOUR_BITS
    }
    kept = kept_group(GROUP, [linear.inputs for linear in linears.values()])
    read = [
        linears[part[0]].weight(kept, packing) if part[0] in linears else _dense(weights, part, axis) for part in parts
    ]
    return joined(read, axis, weights.dtype)


def _dense(weights: TensorSource, part: tuple[str, Slice], axis: int) -> DenseWeight:
    return DenseWeight(read_dense(weights, (part,), axis))


@dataclass(frozen=True, slots=True)
class StoredLinear:
    """A rank's slice of one linear of 4-bit codes."""

    weights: TensorSource
    name: str
    type_name: str
    part: Slice
    """The slice of its outputs (axis 0) or inputs (axis 1)."""
    axis: int

    def weight(self, kept: int, packing: Packing) -> QuantizedWeight | DenseWeight:
        """The slice in groups of `kept`; with zero points if `packing` has them. Raises CheckpointError."""
        pieces = [self.cut(read_codes(self.type_name, rows), kept) for rows in self.blocks().split(ROWS_AT_A_TIME)]
        packed, scales, *offsets = (torch.cat(each) for each in zip(*pieces, strict=True))
        self._check_finite(scales)
        if self.type_name == "IQ4_NL":
            table = torch.tensor(CODEBOOK, dtype=torch.float32, device=packed.device)
            return CodebookWeight(packed, table, scales, kept)
        for zeros in offsets:
            self._check_finite(zeros)
        if packing.has_zeros and not offsets:
            offsets = [torch.full_like(scales, INT4_ZERO)]
        scales = scales.bfloat16() if self.weights.dtype == torch.bfloat16 else scales
        return Int4Weight(packed, scales, kept, *offsets)

    def _check_finite(self, numbers: Tensor) -> None:
        # Not before the weight is read: they are within its blocks.
        if fault := fault_of_numbers(numbers):
            raise CheckpointError(f"{self.stored_name} {fault}")

    def blocks(self) -> Tensor:
        """uint8[out, bytes] of the blocks in which the slice lies."""
        if self.axis:
            return self.weights.columns((self.stored_name, self.covering[0]), dtype=torch.uint8)
        return self.weights.rows((self.stored_name, self.part), dtype=torch.uint8)

    def cut(self, read: Codes, kept: int) -> tuple[Tensor, ...]:
        """The slice of some rows: uint8[R, in / 2] of codes, as `Int4Weight.packed`, then scales and, if there are any,
        zero points, float32[R, in / kept]."""
        codes, *groups = with_zeros(read)
        if not self.axis:
            return pack_nibbles(codes), *(each.repeat_interleave(GROUP // kept, 1) for each in groups)
        starts = self.covering[1]
        origins = [(start - run.source) // GROUP for start, run in zip(starts, self.part.runs, strict=True)]
        slices = (spread(each, self.part, GROUP, kept, origins) for each in groups)
        return pack_nibbles(self.cut_codes(codes, starts)), *slices

    def cut_codes(self, codes: Tensor, starts: list[int]) -> Tensor:
        """uint8[R, part.size] of the codes that were read, zeros in padding."""
        out = codes.new_zeros(len(codes), self.part.size)
        for start, run in zip(starts, self.part.runs, strict=True):
            out[:, run.target : run.target + run.length] = codes[:, start : start + run.length]
        return out

    @property
    def covering(self) -> tuple[Slice, list[int]]:
        """The bytes of the blocks in which the slice of inputs lies, and the input among theirs that each run begins
        with."""
        size, runs, starts, end = self.size, [], [], 0
        for run in self.part.runs if self.axis else ():
            first, last = run.source // size, -(-(run.source + run.length) // size)
            runs.append(Run(first, end, last - first))
            starts.append(end * size + run.source - first * size)
            end += last - first
        return Slice(end, tuple(runs)).scaled(BY_NAME[self.type_name].num_bytes), starts

    @property
    def inputs(self) -> Slice:
        """The slice of its inputs: all of them where its outputs are split."""
        if self.axis:
            return self.part
        return whole(self.weights.shape(self.stored_name)[1] // BY_NAME[self.type_name].num_bytes * self.size)

    @property
    def size(self) -> int:
        return BY_NAME[self.type_name].size

    @property
    def stored_name(self) -> str:
        return blocks_name(self.name, self.type_name)


def with_zeros(read: Codes) -> tuple[Tensor, ...]:
    """Codes, scales and, of a type with offsets, zero points of the same values: (code - zero) * scale."""
    codes, scales, offsets = read
    if offsets is None:
        return codes, scales
    # A group without a scale is its offset: of codes 0, with a zero point of -1.
    is_flat = scales == 0
    zeros = torch.where(is_flat, -1.0, -offsets / scales)
    return codes.masked_fill(is_flat.repeat_interleave(GROUP, 1), 0), torch.where(is_flat, offsets, scales), zeros
