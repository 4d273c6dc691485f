"""A rank's slices of compressed-tensors' linears as weights."""

from dataclasses import dataclass

import torch
from torch import Tensor

from peregrine_kernels import DenseWeight, Int8Weight
from peregrine_kernels.weights import ROWS_AT_A_TIME, Float8Weight, Int4Weight, QuantizedWeight
from peregrine_server.models.formats.checkpoints.compressed_scheme import FLOATS8, PACKED, CompressedScheme
from peregrine_server.models.formats.checkpoints.groups import (
    WHOLE_ROW,
    clear_padding,
    kept_group,
    read_groups,
    spread,
    take_rows,
    words_of,
)
from peregrine_server.models.formats.checkpoints.joined import joined
from peregrine_server.models.loading.slices import Slice, whole
from peregrine_server.models.loading.tensor_file import CheckpointError
from peregrine_server.models.loading.weights import TensorSource


def read_linears(
    scheme: CompressedScheme, weights: TensorSource, parts: tuple[tuple[str, Slice], ...], axis: int
) -> QuantizedWeight | DenseWeight:
    """The linears' slices as `WeightFormat.load` takes them. What no packed weight stands for exactly is dense."""
    group_size = scheme.group_size or WHOLE_ROW
    inputs = [_inputs(scheme, weights, name, part, axis) for name, part in parts]
    kept = kept_group(group_size, inputs)
    read = [
        StoredLinear(scheme, weights, name, part, across, axis, group_size, kept).weight()
        for (name, part), across in zip(parts, inputs, strict=True)
    ]
    return joined(read, axis, weights.dtype)


def _inputs(scheme: CompressedScheme, weights: TensorSource, name: str, part: Slice, axis: int) -> Slice:
    """The slice of a linear's inputs: all of them where its outputs are split."""
    if axis:
        return part
    if scheme.layout != PACKED:
        return whole(weights.shape(f"{name}.weight")[1])
    return whole(weights.shape(f"{name}.weight_packed")[1] * (32 // scheme.num_bits))


@dataclass(frozen=True, slots=True)
class StoredLinear:
    """A rank's slice of one linear."""

    scheme: CompressedScheme
    weights: TensorSource
    name: str
    part: Slice
    """The slice of its outputs (axis 0) or inputs (axis 1)."""
    inputs: Slice
    axis: int
    group_size: int
    kept: int
    """Size of groups on the device."""

    def weight(self) -> QuantizedWeight | DenseWeight:
        """The slice, as it is stored or dense. Raises CheckpointError."""
        values, scales, zeros = self.values(), self.scales(), self.zeros()
        if self.scheme.num_bits == 4:
            scales = scales.bfloat16() if self.weights.dtype == torch.bfloat16 else scales
            return Int4Weight(values, scales, self.kept, zeros)
        if zeros is None and self.scheme.group_size is None:
            kind = Float8Weight if self.scheme.layout == FLOATS8 else Int8Weight
            return kind(values, scales[:, 0])
        return DenseWeight(self.dense(values, scales, zeros))

    def values(self) -> Tensor:
        """uint8[out, in / 2] of 4 bits, else int8 or float8_e4m3fn [out, in]."""
        if self.scheme.layout != PACKED:
            dtype = torch.float8_e4m3fn if self.scheme.layout == FLOATS8 else torch.int8
            return self.read("weight", self.part, dtype)
        per_word = 32 // self.scheme.num_bits
        part = words_of(self.part, per_word) if self.axis else self.part
        if part is None:
            raise CheckpointError(
                f"{self.name}.weight_packed: a shard's slice would cut words of {per_word} weights; "
                "use another --num-shard"
            )
        stored = self.read("weight_packed", part, torch.int32).view(torch.uint8)
        if self.scheme.num_bits == 4:
            return stored  # Zeros that fill up a slice have scales of zero.
        values = (stored ^ 128).view(torch.int8)
        return clear_padding(values, self.part) if self.axis else values

    def scales(self) -> Tensor:
        """float32[out, 1], of 4 bits or of groups [out, in / kept]."""
        name = f"{self.name}.weight_scale"
        if self.scheme.has_tensor_scale:
            scale = self.weights.vector((name, whole(1)), dtype=torch.float32)
            return scale.expand(self.num_rows, 1)
        if self.axis == 0:
            return self.regrouped(self.weights.rows((name, self.part), dtype=torch.float32))
        if not self.is_grouped:
            return self.weights.columns((name, whole(1)), dtype=torch.float32)
        return read_groups(self.weights, name, self.part, self.group_size, self.kept, torch.float32)

    def zeros(self) -> Tensor | None:
        """The same of zero points, as the integers of `values` have them; None if there are none."""
        if self.scheme.is_symmetric:
            return None
        name = f"{self.name}.weight_zero_point"
        stored = self.weights.rows((name, whole(self.weights.shape(name)[0])), dtype=self.zeros_dtype)
        zeros = self.unpack_rows(stored) if self.scheme.layout == PACKED else stored.float()
        if self.axis == 0:
            return self.regrouped(take_rows(zeros, self.part))
        if not self.is_grouped:
            return zeros
        origins = [0] * len(self.part.runs)
        return spread(zeros, self.part, self.group_size, self.kept, origins)

    def unpack_rows(self, words: Tensor) -> Tensor:
        """int32[out / n, groups], n rows in a word -> float32[out, groups]."""
        bits = self.scheme.num_bits
        shifts = torch.arange(0, 32, bits, device=words.device)
        rows = (words[:, None] >> shifts[:, None]) & (2**bits - 1)
        num_rows = self.weights.shape(f"{self.name}.weight_packed")[0]
        zeros: Tensor = rows.flatten(0, 1)[:num_rows] - (0 if bits == 4 else 128)
        return zeros.float()

    def dense(self, values: Tensor, scales: Tensor, zeros: Tensor | None) -> Tensor:
        """(values - zeros) * scales [out, in] in the serving dtype."""
        out = torch.empty(values.shape, dtype=self.weights.dtype, device=values.device)
        for start in range(0, len(out), ROWS_AT_A_TIME):
            rows = slice(start, start + ROWS_AT_A_TIME)
            groups = values[rows].float().unflatten(1, (scales.shape[1], -1))
            groups = groups if zeros is None else groups - zeros[rows, :, None]
            out[rows] = (groups * scales[rows, :, None]).flatten(1)
        return out

    def read(self, kind: str, part: Slice, dtype: torch.dtype) -> Tensor:
        tensor = (f"{self.name}.{kind}", part)
        return self.weights.columns(tensor, dtype=dtype) if self.axis else self.weights.rows(tensor, dtype=dtype)

    def regrouped(self, values: Tensor) -> Tensor:
        """[out, groups of the checkpoint] -> [out, in / kept]."""
        if not self.is_grouped:
            return values
        return values.repeat_interleave(self.inputs.size // self.kept // values.shape[1], dim=1)

    @property
    def is_grouped(self) -> bool:
        """Whether scales are kept for groups: 4-bit kernels have no others, and with zero points what fills up a slice
        has scales of zero."""
        return self.scheme.num_bits == 4 or self.scheme.group_size is not None or not self.scheme.is_symmetric

    @property
    def zeros_dtype(self) -> torch.dtype:
        return torch.int32 if self.scheme.layout == PACKED else torch.int8

    @property
    def num_rows(self) -> int:
        return self.part.size if self.axis == 0 else self.weights.shape(f"{self.name}.weight")[0]
