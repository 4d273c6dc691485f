"""Layouts of integers that are stored inputs first: GPTQ's and AWQ's. The common part; imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from peregrine_server.models.errors import UnsupportedModel
from peregrine_server.models.formats.checkpoints.checks import fault_of_groups, fault_of_numbers, fault_of_zeros
from peregrine_server.models.formats.checkpoints.stored import SCALE_BYTES, StoredFormat
from peregrine_server.models.formats.interface import ALL_KERNELS, WeightKernels
from peregrine_server.models.formats.packing import INT8, Packing
from peregrine_server.models.loading.tensor_spec import TensorSpec

if TYPE_CHECKING:
    from peregrine_kernels import Weight
    from peregrine_server.models.loading.slices import Slice
    from peregrine_server.models.loading.weights import TensorSource


@dataclass(frozen=True, slots=True)
class InputMajorScheme:
    """How all linears of a checkpoint are stored: (q - zero) * scale, with a zero and a scale for a group of inputs."""

    num_bits: int
    """4 or 8"""
    group_size: int | None
    """Inputs of a group; None: all of them."""
    is_symmetric: bool
    """Whether every zero is the middle of the integers."""
    packs_inputs: bool
    """Whether a word of `qweight` holds consecutive inputs of an output, and not outputs of an input."""
    places: tuple[int, ...]
    """Place in a word of outputs of the first output, the second, ..., from the lowest bits."""
    zero_offset: int
    """Difference of a zero from the integer that stands for it."""
    has_groups: bool = False
    """Whether `g_idx` holds each input's group."""
    is_ordered: bool = True
    """Whether groups are of consecutive inputs."""

    @property
    def per_word(self) -> int:
        return 32 // self.num_bits

    @property
    def middle(self) -> int:
        return 1 << (self.num_bits - 1)


class InputMajorFormat(StoredFormat):
    """Linears of a checkpoint of GPTQ or AWQ."""

    def __init__(self, name: str, scheme: InputMajorScheme, kernels: WeightKernels = ALL_KERNELS) -> None:
        self.name, self.scheme = name, scheme
        self.also_named: tuple[str, ...] = name, f"int{scheme.num_bits}", "marlin"
        super().__init__(kernels)

    def stored(self, in_features: int) -> Packing:
        # No kernel takes inputs in another order: their values are rounded once more, to 8 bits.
        if self.scheme.num_bits == 8 or not self.scheme.is_ordered:
            return INT8
        return self.in_groups(self.scheme.group_size, in_features)

    def groups_of(self, size: int) -> Packing:
        return Packing("int4", size, not self.scheme.is_symmetric)

    def expected(self, name: str, out_features: int, in_features: int) -> Mapping[str, TensorSpec]:
        scheme, per_word = self.scheme, self.scheme.per_word
        for kind, number, packed in ("in", in_features, scheme.packs_inputs), ("out", out_features, True):
            if packed and number % per_word:
                raise UnsupportedModel(f"{name}.qweight: {number} {kind}puts fill no words of {per_word}")
        num_groups = math.ceil(in_features / scheme.group_size) if scheme.group_size else 1
        of_zeros = partial(fault_of_zeros, scheme.middle - scheme.zero_offset, scheme.num_bits)
        consecutive = (scheme.group_size or in_features) if scheme.is_ordered else None
        words = (in_features // per_word, out_features), (in_features, out_features // per_word)
        tensors = {
            "qweight": TensorSpec(words[0] if scheme.packs_inputs else words[1], ("I32",)),
            "qzeros": TensorSpec(
                (num_groups, out_features // per_word), ("I32",), of_zeros if scheme.is_symmetric else None
            ),
            "scales": TensorSpec((num_groups, out_features), fault=fault_of_numbers),
        }
        if scheme.has_groups:
            of_groups = partial(fault_of_groups, num_groups, consecutive)
            tensors["g_idx"] = TensorSpec((in_features,), ("I32",), of_groups)
        return {f"{name}.{kind}": tensor for kind, tensor in tensors.items()}

    def refuses(self, leftover: str) -> bool:
        return leftover != "bias"  # Some tools write zeros where the model has none.

    def checkpoint_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        num_groups = math.ceil(in_features / self.scheme.group_size) if self.scheme.group_size else 1
        integers = (in_features + num_groups) * out_features * self.scheme.num_bits // 8
        groups = 4 * in_features if self.scheme.has_groups else 0
        return integers + num_groups * out_features * SCALE_BYTES + groups

    def load(self, weights: TensorSource, parts: tuple[tuple[str, Slice], ...], axis: int) -> Weight:
        from peregrine_server.models.formats.checkpoints.input_major_reader import read_linears

        return self.keep_read(read_linears(self.scheme, weights, parts, axis), weights.dtype)
