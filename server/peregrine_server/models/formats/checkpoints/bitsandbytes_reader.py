"""A rank's slices of bitsandbytes' linears as weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from peregrine_kernels import DenseWeight, Int8Weight
from peregrine_kernels.weights import ROWS_AT_A_TIME, CodebookWeight, QuantizedWeight
from peregrine_server.models.formats.checkpoints.bitsandbytes import BLOCK, NESTED_BLOCK, BitsAndBytesScheme
from peregrine_server.models.formats.checkpoints.checks import state_of
from peregrine_server.models.formats.checkpoints.groups import kept_group, sources
from peregrine_server.models.formats.checkpoints.joined import joined
from peregrine_server.models.loading.slices import Run, Slice, whole
from peregrine_server.models.loading.weights import TensorSource


def read_linears(
    scheme: BitsAndBytesScheme,
    weights: TensorSource,
    parts: tuple[tuple[str, Slice], ...],
    axis: int,
    shapes: Mapping[str, tuple[int, int]],
) -> QuantizedWeight | DenseWeight:
    """The linears' slices as `WeightFormat.load` takes them, of linears (out, in) in the checkpoint; joined ones may be
    dense."""
    if scheme.kind == "int8":
        return joined([read_int8(weights, name, part, axis) for name, part in parts], axis, weights.dtype)
    linears = [
        Linear4Bit(weights, name, part, axis, shapes[name], read_offset(scheme, weights, name)) for name, part in parts
    ]
    # A group of a row is within one block, wherever in the block the row begins.
    kept = kept_group(math.gcd(BLOCK, *(linear.shape[1] for linear in linears)), [each.inputs for each in linears])
    return joined([linear.weight(kept) for linear in linears], axis, weights.dtype)


def read_int8(weights: TensorSource, name: str, part: Slice, axis: int) -> Int8Weight:
    """A slice of a linear of 8 bits: values * SCB / 127."""
    read = weights.columns if axis else weights.rows
    rows = whole(weights.shape(f"{name}.SCB")[0]) if axis else part
    scales = numbers(weights, f"{name}.SCB", rows) / 127
    return Int8Weight(read((f"{name}.weight", part), dtype=torch.int8), scales)


def numbers(weights: TensorSource, name: str, part: Slice | None = None) -> Tensor:
    """float32: a slice of a vector, or all of it."""
    return weights.vector((name, part or whole(weights.shape(name)[0])), dtype=torch.float32)


def read_offset(scheme: BitsAndBytesScheme, weights: TensorSource, name: str) -> float | None:
    """Reads what is added to the scales of a 4-bit weight that are quantized; None: they are not."""
    at = f"{name}.{scheme.state}"
    state = state_of(weights.vector((at, whole(weights.shape(at)[0])), dtype=torch.uint8))
    return float(state["nested_offset"]) if state is not None and scheme.is_nested else None


@dataclass(frozen=True, slots=True)
class Linear4Bit:
    """A rank's slice of one linear of nf4 or fp4."""

    weights: TensorSource
    name: str
    part: Slice
    """The slice of its outputs (axis 0) or inputs (axis 1)."""
    axis: int
    shape: tuple[int, int]
    """(out, in) in the checkpoint"""
    offset: float | None
    """Number that is added to quantized scales; None: they are not quantized."""

    def weight(self, kept: int) -> CodebookWeight:
        """The slice in groups of `kept`, each within a block."""
        table = numbers(self.weights, f"{self.name}.weight.quant_map")
        return CodebookWeight(self.packed(), table, self.scales(kept), kept)

    def packed(self) -> Tensor:
        """uint8[out, in / 2], as `CodebookWeight.packed`: the file has the first input in the high bits."""
        half = self.shape[1] // 2
        if self.axis == 0:
            stored = self.bytes_of(self.part.scaled(half)).view(-1, half)
        else:
            stored = torch.cat([self.columns(start) for start in range(0, self.shape[0], ROWS_AT_A_TIME)])
        return stored >> 4 | stored << 4

    def columns(self, start: int) -> Tensor:
        """uint8[R, in / 2]: some rows' slice of inputs; whole rows are read, of which a run is too short to be."""
        half = self.shape[1] // 2
        count = min(ROWS_AT_A_TIME, self.shape[0] - start)
        rows = self.bytes_of(Slice(count * half, (Run(start * half, 0, count * half),))).view(count, half)
        out = rows.new_zeros(count, self.part.size // 2)
        for run in self.part.runs:
            out[:, run.target // 2 : (run.target + run.length) // 2] = rows[
                :, run.source // 2 : (run.source + run.length) // 2
            ]
        return out

    def bytes_of(self, part: Slice) -> Tensor:
        return self.weights.rows((f"{self.name}.weight", part), dtype=torch.uint8)

    def scales(self, kept: int) -> Tensor:
        """float32[out, in / kept], zero in padding."""
        absmax = torch.nn.functional.pad(self.absmax(), (0, 1))
        rows = sources(whole(self.shape[0]) if self.axis else self.part)[:, None]
        columns = sources(self.inputs)[None, ::kept]
        blocks = (rows * self.shape[1] + columns) // BLOCK
        return absmax[torch.where((rows < 0) | (columns < 0), -1, blocks)]

    def absmax(self) -> Tensor:
        """float32[blocks]: the scales of all blocks of the checkpoint's weight."""
        name = f"{self.name}.weight.absmax"
        if self.offset is None:
            return numbers(self.weights, name)
        codes = self.weights.vector((name, whole(self.weights.shape(name)[0])), dtype=torch.uint8)
        table = numbers(self.weights, f"{self.name}.weight.nested_quant_map")
        scales = numbers(self.weights, f"{self.name}.weight.nested_absmax")
        return table[codes.int()] * scales.repeat_interleave(NESTED_BLOCK)[: len(codes)] + self.offset

    @property
    def inputs(self) -> Slice:
        """The slice of its inputs: all of them where its outputs are split."""
        return self.part if self.axis else whole(self.shape[1])
