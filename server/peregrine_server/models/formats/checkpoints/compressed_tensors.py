"""compressed-tensors' layouts: pack-quantized (4 and 8 bits), int-quantized and float-quantized."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from peregrine_server.models.errors import UnsupportedModel
from peregrine_server.models.formats.checkpoints.checks import fault_of_numbers, fault_of_shape
from peregrine_server.models.formats.checkpoints.compressed_scheme import (
    FLOATS8,
    INTEGERS,
    METHOD,
    PACKED,
    read_scheme,
)
from peregrine_server.models.formats.checkpoints.stored import SCALE_BYTES, StoredFormat
from peregrine_server.models.formats.fp8 import Fp8W8A8Format
from peregrine_server.models.formats.interface import ALL_KERNELS, WeightKernels
from peregrine_server.models.formats.packing import FP8, FP8_W8A8, INT8, Packing
from peregrine_server.models.loading.tensor_spec import TensorSpec

if TYPE_CHECKING:
    from peregrine_kernels import Weight
    from peregrine_server.models.loading.slices import Slice
    from peregrine_server.models.loading.weights import TensorSource

UNUSED = "input_scale", "input_zero_point", "output_scale", "output_zero_point", "bias"
"""Tensors beside a linear's weights that do not change them: inputs are rounded by their own values here, or not."""
_MORE_NAMES = {PACKED: ("marlin",), FLOATS8: (Fp8W8A8Format.name,)}


class CompressedTensorsFormat(StoredFormat):
    """Linears of a checkpoint of compressed-tensors."""

    def __init__(self, quantization: Mapping[str, Any], kernels: WeightKernels = ALL_KERNELS) -> None:
        self.scheme = read_scheme(quantization)
        self.name = f"{METHOD} {self.scheme.layout}"
        kind = "fp8" if self.scheme.layout == FLOATS8 else f"int{self.scheme.num_bits}"
        self.also_named = METHOD, kind, *_MORE_NAMES.get(self.scheme.layout, ())
        self._fp8 = FP8
        super().__init__(kernels)

    def named(self, name: str) -> Self:
        if name != Fp8W8A8Format.name:
            return self
        named = copy(self)
        named.name, named._fp8 = f"{self.name}, W8A8", FP8_W8A8
        return named

    def stored(self, in_features: int) -> Packing:
        if self.scheme.layout == FLOATS8:
            return self._fp8
        if self.scheme.num_bits == 8:
            return INT8
        return self.in_groups(self.scheme.group_size, in_features)

    def groups_of(self, size: int) -> Packing:
        return Packing("int4", size, not self.scheme.is_symmetric)

    def expected(self, name: str, out_features: int, in_features: int) -> Mapping[str, TensorSpec]:
        scheme, group = self.scheme, self.scheme.group_size
        if group and in_features % group:
            raise UnsupportedModel(
                f"{name}.weight_scale: groups of {group} do not divide {in_features} inputs; give another checkpoint"
            )
        scales = (out_features, in_features // group if group else 1)
        tensors = {"weight_scale": TensorSpec((1,) if scheme.has_tensor_scale else scales, fault=fault_of_numbers)}
        if scheme.layout == PACKED:
            per_word = 32 // scheme.num_bits
            if in_features % per_word:
                raise UnsupportedModel(f"{name}.weight_packed: {in_features} inputs fill no words of {per_word}")
            tensors["weight_packed"] = TensorSpec((out_features, in_features // per_word), ("I32",))
            tensors["weight_shape"] = TensorSpec((2,), ("I64",), partial(fault_of_shape, [out_features, in_features]))
            zeros = TensorSpec((-(-out_features // per_word), scales[1]), ("I32",))
        else:
            tensors["weight"] = TensorSpec(
                (out_features, in_features), ("I8",) if scheme.layout == INTEGERS else ("F8_E4M3",)
            )
            zeros = TensorSpec(tensors["weight_scale"].shape, ("I8",))
        if not scheme.is_symmetric:
            tensors["weight_zero_point"] = zeros
        return {f"{name}.{kind}": tensor for kind, tensor in tensors.items()}

    def refuses(self, leftover: str) -> bool:
        return leftover not in UNUSED

    def checkpoint_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        num_scales = -(-in_features // self.scheme.group_size) if self.scheme.group_size else 1
        return out_features * (in_features * self.scheme.num_bits // 8 + num_scales * SCALE_BYTES)

    def load(self, weights: TensorSource, parts: tuple[tuple[str, Slice], ...], axis: int) -> Weight:
        from peregrine_server.models.formats.checkpoints.compressed_reader import read_linears

        return self.keep_read(read_linears(self.scheme, weights, parts, axis), weights.dtype)
