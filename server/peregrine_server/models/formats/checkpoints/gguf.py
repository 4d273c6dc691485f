"""GGUF's layouts: each linear is of a type of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from peregrine_server.models.errors import UnsupportedModel
from peregrine_server.models.formats.checkpoints.gguf_types import GGUF, GROUP, read_packings, read_types
from peregrine_server.models.formats.checkpoints.stored import StoredFormat
from peregrine_server.models.formats.interface import ALL_KERNELS, WeightKernels
from peregrine_server.models.formats.packing import Packing
from peregrine_server.models.loading.gguf_header import BY_NAME, FOUR_BITS
from peregrine_server.models.loading.gguf_layout import blocks_name
from peregrine_server.models.loading.tensor_spec import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

    from peregrine_kernels import Weight
    from peregrine_server.models.loading.slices import Slice
    from peregrine_server.models.loading.weights import TensorSource


class GgufFormat:
    """Linears of a GGUF file."""

    name = GGUF
    also_named: tuple[str, ...] = (GGUF,)

    def __init__(self, quantization: Mapping[str, Any], kernels: WeightKernels = ALL_KERNELS) -> None:
        self._types, packings = read_types(quantization), read_packings(quantization)
        kinds = {key: GgufLinears(*key, kernels) for key in {(self._types[name], packings[name]) for name in packings}}
        self._linears = {name: kinds[self._types[name], packings[name]] for name in packings}
        self._kinds = list(kinds.values())

    @property
    def compute_dtype(self) -> str | None:
        return next((each.compute_dtype for each in self._kinds if each.compute_dtype), None)

    def named(self, name: str) -> Self:
        return self

    def linear(self, name: str) -> GgufLinears:
        if name not in self._linears:
            raise UnsupportedModel(f"quantization_config: types lack {name}")
        return self._linears[name]

    def expected(self, name: str, out_features: int, in_features: int) -> Mapping[str, TensorSpec]:
        return self.linear(name).expected(name, out_features, in_features)

    def refuses(self, leftover: str) -> bool:
        return True

    def load(self, weights: TensorSource, parts: tuple[tuple[str, Slice], ...], axis: int) -> Weight:
        from peregrine_server.models.formats.checkpoints.gguf_reader import read_linears

        kept = self.linear(parts[0][0])
        return kept.keep_read(read_linears(self._types, kept.packing, weights, parts, axis), weights.dtype)

    def from_dense(self, table: Tensor) -> Weight:
        return self._kinds[0].from_dense(table)

    def num_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        return min(each.num_bytes(out_features, in_features, dtype) for each in self._kinds)

    def head_num_bytes(self, out_features: int, in_features: int, dtype: str) -> int | None:
        return self._kinds[0].head_num_bytes(out_features, in_features, dtype)

    def checkpoint_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        return max(each.checkpoint_bytes(out_features, in_features, dtype) for each in self._kinds)


class GgufLinears(StoredFormat):
    """Linears of one type that are kept in one way."""

    name = GGUF

    def __init__(self, type_name: str, packing: Packing, kernels: WeightKernels = ALL_KERNELS) -> None:
        self.type, self.packing = BY_NAME[type_name], packing
        super().__init__(kernels)

    def stored(self, in_features: int) -> Packing:
        return self.in_groups(GROUP, in_features) if self.packing.group_size else self.packing

    def groups_of(self, size: int) -> Packing:
        return replace(self.packing, group_size=size) if self.packing.group_size else self.packing

    def expected(self, name: str, out_features: int, in_features: int) -> Mapping[str, TensorSpec]:
        if in_features % self.type.size:
            raise UnsupportedModel(f"{name}: {in_features} inputs fill no blocks of {self.type.name}")
        if self.type.name not in FOUR_BITS:
            return {f"{name}.weight": TensorSpec((out_features, in_features))}
        row_bytes = in_features // self.type.size * self.type.num_bytes
        return {blocks_name(name, self.type.name): TensorSpec((out_features, row_bytes), ("U8",))}

    def refuses(self, leftover: str) -> bool:
        return True

    def load(self, weights: TensorSource, parts: tuple[tuple[str, Slice], ...], axis: int) -> Weight:
        from peregrine_server.models.formats.checkpoints.gguf_reader import read_linears

        types = {name: self.type.name for name, _ in parts}
        return self.keep_read(read_linears(types, self.packing, weights, parts, axis), weights.dtype)

    def checkpoint_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        if self.type.name not in FOUR_BITS:
            return self.dense.checkpoint_bytes(out_features, in_features, dtype)
        return out_features * in_features // self.type.size * self.type.num_bytes
