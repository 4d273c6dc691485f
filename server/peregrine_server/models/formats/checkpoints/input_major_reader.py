"""A rank's slices of GPTQ's and AWQ's linears as weights."""

from dataclasses import dataclass

import torch
from torch import Tensor

from peregrine_kernels import DenseWeight, Int8Weight
from peregrine_kernels.weights import ROWS_AT_A_TIME, Int4Weight, QuantizedWeight, pack_nibbles, unpack_nibbles
from peregrine_server.models.formats.checkpoints.groups import (
    WHOLE_ROW,
    clear_padding,
    kept_group,
    sources,
    take_rows,
    words_of,
)
from peregrine_server.models.formats.checkpoints.input_major import InputMajorScheme
from peregrine_server.models.formats.checkpoints.joined import joined
from peregrine_server.models.loading.slices import Slice, whole
from peregrine_server.models.loading.tensor_file import CheckpointError
from peregrine_server.models.loading.weights import TensorSource


def read_linears(
    scheme: InputMajorScheme, weights: TensorSource, parts: tuple[tuple[str, Slice], ...], axis: int
) -> QuantizedWeight | DenseWeight:
    """The linears' slices as `WeightFormat.load` takes them. What no packed weight stands for exactly is dense."""
    linears = [StoredLinear(scheme, weights, name, part, axis) for name, part in parts]
    kept = kept_group(scheme.group_size or WHOLE_ROW, [linear.inputs for linear in linears])
    return joined([linear.weight(kept) for linear in linears], axis, weights.dtype)


@dataclass(frozen=True, slots=True)
class StoredLinear:
    """A rank's slice of one linear."""

    scheme: InputMajorScheme
    weights: TensorSource
    name: str
    part: Slice
    """The slice of its outputs (axis 0) or inputs (axis 1)."""
    axis: int

    def weight(self, kept: int) -> QuantizedWeight | DenseWeight:
        """The slice in groups of `kept`, or one of a row, or dense. Raises CheckpointError."""
        values, scales, zeros, groups = self.values(), self.scales(), self.zeros(), self.groups()
        if self.scheme.num_bits == 4 and self.scheme.is_ordered:
            heads = groups[::kept]
            scales = scales.bfloat16() if self.weights.dtype == torch.bfloat16 else scales
            return Int4Weight(values, scales[:, heads], kept, None if zeros is None else zeros[:, heads])
        if self.scheme.num_bits == 8 and zeros is None and not self.scheme.group_size:
            integers = (values ^ 128).view(torch.int8)
            return Int8Weight(clear_padding(integers, self.part) if self.axis else integers, scales[:, 0])
        return DenseWeight(self.dense(values, scales, zeros, groups))

    def values(self) -> Tensor:
        """uint8[out, in / 2] of 4 bits, as `Int4Weight.packed`, else uint8[out, in]."""
        name = f"{self.name}.qweight"
        packs_part = self.scheme.packs_inputs == bool(self.axis)
        part = words_of(self.part, self.scheme.per_word) if packs_part else self.part
        if part is None:
            raise CheckpointError(
                f"{name}: a shard's slice would cut words of {self.scheme.per_word} weights; use another --num-shard"
            )
        read = self.weights.rows if self.axis else self.weights.columns
        stored = read((name, part), dtype=torch.int32)
        if self.scheme.packs_inputs:
            return stored.T.contiguous().view(torch.uint8)
        return pack_nibbles(self.unpack_outputs(stored))

    def scales(self) -> Tensor:
        """float32[out, groups + 1]: the last are zero, for padding."""
        return self.rows_of(self.weights.rows((f"{self.name}.scales", whole(self.num_groups)), dtype=torch.float32).T)

    def zeros(self) -> Tensor | None:
        """The same of zeros; None if they all are the middle."""
        if self.scheme.is_symmetric:
            return None
        words = self.weights.rows((f"{self.name}.qzeros", whole(self.num_groups)), dtype=torch.int32)
        return self.rows_of(self.unpack_outputs(words).float() + self.scheme.zero_offset)

    def unpack_outputs(self, words: Tensor) -> Tensor:
        """int32[n, out / per_word], outputs in a word -> uint8[out, n]."""
        bits = self.scheme.num_bits
        out = torch.empty((words.shape[1], self.scheme.per_word, len(words)), dtype=torch.uint8, device=words.device)
        for output, place in enumerate(self.scheme.places):
            out[:, output] = ((words >> place * bits) & (2**bits - 1)).T
        return out.flatten(0, 1)

    def rows_of(self, values: Tensor) -> Tensor:
        """[all outputs, groups] -> [out, groups + 1], zeros in padding and in the last."""
        return torch.nn.functional.pad(values if self.axis else take_rows(values, self.part), (0, 1))

    def groups(self) -> Tensor:
        """int64[in]: the group of each input, -1 in padding."""
        groups, inputs = self.all_groups(), sources(self.inputs)
        return torch.where(inputs < 0, inputs, groups.cpu()[inputs])

    def all_groups(self) -> Tensor:
        """The same of all inputs of the checkpoint."""
        if self.scheme.is_ordered:
            return torch.arange(self.num_inputs) // (self.scheme.group_size or WHOLE_ROW)
        return self.weights.vector((f"{self.name}.g_idx", whole(self.num_inputs)), dtype=torch.int64)

    def dense(self, values: Tensor, scales: Tensor, zeros: Tensor | None, groups: Tensor) -> Tensor:
        """(values - zeros) * scales [out, in] in the serving dtype, by the group of each input."""
        out = torch.empty((len(values), len(groups)), dtype=self.weights.dtype, device=values.device)
        for start in range(0, len(out), ROWS_AT_A_TIME):
            rows = slice(start, start + ROWS_AT_A_TIME)
            integers = unpack_nibbles(values[rows]) if self.scheme.num_bits == 4 else values[rows]
            offsets = self.scheme.middle if zeros is None else zeros[rows][:, groups]
            out[rows] = (integers.float() - offsets) * scales[rows][:, groups]
        return out

    @property
    def inputs(self) -> Slice:
        """The slice of its inputs: all of them where its outputs are split."""
        return self.part if self.axis else whole(self.num_inputs)

    @property
    def num_inputs(self) -> int:
        height = self.weights.shape(f"{self.name}.qweight")[0]
        return height * self.scheme.per_word if self.scheme.packs_inputs else height

    @property
    def num_groups(self) -> int:
        return self.weights.shape(f"{self.name}.scales")[0]
