"""bitsandbytes' layouts: int8 (of LLM.int8), and nf4 and fp4, whose scales may be quantized too ("nested")."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from peregrine_server.models.errors import UnsupportedModel
from peregrine_server.models.formats.checkpoints.checks import fault_of_numbers, fault_of_row_format, fault_of_state
from peregrine_server.models.formats.checkpoints.scheme import expect, expect_quantized, first_of
from peregrine_server.models.formats.checkpoints.stored import StoredFormat
from peregrine_server.models.formats.interface import ALL_KERNELS, WeightKernels
from peregrine_server.models.formats.packing import INT8, Packing
from peregrine_server.models.loading.tensor_spec import TensorSpec

if TYPE_CHECKING:
    from peregrine_kernels import Weight
    from peregrine_server.models.loading.slices import Slice
    from peregrine_server.models.loading.weights import TensorSource

BITSANDBYTES = "bitsandbytes"
BLOCK, NESTED_BLOCK = 64, 256
"""Weights of a scale, and scales of a scale. Blocks follow one another through a weight's rows."""


@dataclass(frozen=True, slots=True)
class BitsAndBytesScheme:
    """How all linears of a checkpoint are stored."""

    kind: Literal["int8", "nf4", "fp4"]
    is_nested: bool

    @property
    def state(self) -> str:
        """The name of the JSON that describes 4-bit values, within a linear."""
        return f"weight.quant_state.bitsandbytes__{self.kind}"


class BitsAndBytesFormat(StoredFormat):
    """Linears of a checkpoint of bitsandbytes."""

    def __init__(self, quantization: Mapping[str, Any], kernels: WeightKernels = ALL_KERNELS) -> None:
        self.scheme = read_scheme(quantization)
        self.name = f"{BITSANDBYTES} {self.scheme.kind}"
        self._skipped = quantization.get("llm_int8_skip_modules")
        tool = BITSANDBYTES if self.scheme.kind == "int8" else f"{BITSANDBYTES}-{self.scheme.kind}"
        self.also_named: tuple[str, ...] = tool, self.scheme.kind
        self._shapes: dict[str, tuple[int, int]] = {}
        super().__init__(kernels)

    def stored(self, in_features: int) -> Packing:
        if self.scheme.kind == "int8":
            return INT8
        return self.in_groups(BLOCK, in_features)

    def groups_of(self, size: int) -> Packing:
        return Packing("codebook", size)

    def expected(self, name: str, out_features: int, in_features: int) -> Mapping[str, TensorSpec]:
        expect_quantized(name, "llm_int8_skip_modules", self._skipped)
        # 4-bit values are stored without a shape.
        self._shapes[name] = out_features, in_features
        if self.scheme.kind == "int8":
            tensors = {
                "weight": TensorSpec((out_features, in_features), ("I8",)),
                "SCB": TensorSpec((out_features,), ("F32",), fault_of_numbers),
                "weight_format": TensorSpec((), ("U8",), fault_of_row_format),
            }
        else:
            tensors = self._expected_4_bit(name, out_features, in_features)
        return {f"{name}.{kind}": tensor for kind, tensor in tensors.items()}

    def _expected_4_bit(self, name: str, out_features: int, in_features: int) -> dict[str, TensorSpec]:
        if in_features % 2:
            raise UnsupportedModel(f"{name}.weight: {in_features} inputs fill no bytes of 2")
        num_blocks, is_nested = math.ceil(out_features * in_features / BLOCK), self.scheme.is_nested
        facts: dict[str, object] = {"quant_type": self.scheme.kind, "blocksize": BLOCK}
        facts |= {"shape": [out_features, in_features], **({"nested_blocksize": NESTED_BLOCK} if is_nested else {})}
        numbers = {"weight.quant_map": 16}
        if is_nested:
            numbers |= {"weight.nested_absmax": math.ceil(num_blocks / NESTED_BLOCK), "weight.nested_quant_map": 256}
        else:
            numbers["weight.absmax"] = num_blocks
        return {
            "weight": TensorSpec((out_features * in_features // 2, 1), ("U8",)),
            self.scheme.state: TensorSpec((-1,), ("U8",), partial(fault_of_state, facts, is_nested)),
            **{name: TensorSpec((size,), ("F32",), fault_of_numbers) for name, size in numbers.items()},
            **({"weight.absmax": TensorSpec((num_blocks,), ("U8",))} if is_nested else {}),
        }

    def refuses(self, leftover: str) -> bool:
        return leftover != "bias"

    def checkpoint_bytes(self, out_features: int, in_features: int, dtype: str) -> int:
        if self.scheme.kind == "int8":
            return out_features * (in_features + 4)
        num_blocks = math.ceil(out_features * in_features / BLOCK)
        return out_features * in_features // 2 + num_blocks * (1 if self.scheme.is_nested else 4)

    def load(self, weights: TensorSource, parts: tuple[tuple[str, Slice], ...], axis: int) -> Weight:
        from peregrine_server.models.formats.checkpoints.bitsandbytes_reader import read_linears

        return self.keep_read(read_linears(self.scheme, weights, parts, axis, self._shapes), weights.dtype)


def read_scheme(quantization: Mapping[str, Any]) -> BitsAndBytesScheme:
    """Reads `quantization_config`. Raises UnsupportedModel for what is not understood."""
    has_8_bits, has_4_bits = (first_of(quantization, f"load_in_{bits}bit", default=False) for bits in (8, 4))
    expect("load_in_8bit", has_8_bits, True, False)
    expect("load_in_4bit", has_4_bits, not has_8_bits)
    if has_8_bits:
        return BitsAndBytesScheme("int8", is_nested=False)
    kind = first_of(quantization, "bnb_4bit_quant_type", default="fp4")
    expect("bnb_4bit_quant_type", kind, "nf4", "fp4")
    is_nested = first_of(quantization, "bnb_4bit_use_double_quant", default=False)
    expect("bnb_4bit_use_double_quant", is_nested, True, False)
    expect("bnb_4bit_quant_storage", first_of(quantization, "bnb_4bit_quant_storage", default="uint8"), "uint8")
    return BitsAndBytesScheme(kind, is_nested)
