"""Launches of linears of quantized weights, of every kind that a server packs on a GPU."""

from collections.abc import Iterator
from functools import cache
from itertools import product

import torch
from torch import Tensor

from peregrine_kernels.aot.shapes import Shape
from peregrine_kernels.aot.weights import meta_weights, stored_weights
from peregrine_kernels.gpu.dequantize import dequantize_launch
from peregrine_kernels.gpu.launch import Launch
from peregrine_kernels.gpu.linear import QuantizedLinear
from peregrine_kernels.gpu.round_inputs import round_inputs_launch
from peregrine_kernels.gpu.row_major import row_major_launch

ROWS = 1, 16, 32, 64
"""Numbers of rows, one for each kernel that they make a difference to."""


def shared_launches(*, is_stored: bool = False) -> Iterator[tuple[str, Launch]]:
    """(what it is, launch) of kernels that all models share: each kind of weight dequantized, those of checkpoints too
    if `is_stored`, fp8 in rows, and inputs rounded to it."""
    size = 4096, 8192
    for kind, linear in _linears(*size, is_stored=is_stored).items():
        yield kind, dequantize_launch(linear.weight, _empty(*size))
    x, codes, scales = _empty(*size), _empty(*size, dtype=torch.float8_e4m3fn), _empty(size[0], 1, dtype=torch.float32)
    yield "fp8", row_major_launch(_linears(*size)["fp8"].weight, codes)
    yield "values", round_inputs_launch(x, torch.empty_like(x))
    yield "codes", round_inputs_launch(x, codes, scales)


def product_launches(
    out_features: int, in_features: int, activation: str | None, capability: int, *, more_groups: bool = False
) -> Iterator[tuple[str, Launch]]:
    """(what it is, launch) of each kind of weight [out, in] and number of rows."""
    for kind, linear in _linears(out_features, in_features, activation, more_groups=more_groups).items():
        for rows in ROWS:
            for launch in linear.launches(_empty(rows, in_features), _empty(rows, out_features), capability):
                yield f"{kind} {rows} x [{out_features}, {in_features}]", launch


def model_launches(shape: Shape, capability: int) -> Iterator[Launch]:
    """All products of one rank of a model: the linears of a layer, and the head."""
    hidden, attended, ffn = shape.hidden_size, shape.num_heads * shape.head_dim, shape.ffn_size
    sums = [attended + ffn] if shape.is_parallel else [attended, ffn]
    for rows in ROWS:
        x, mixed = _empty(rows, hidden), _empty(rows, attended + ffn)
        activated = mixed[:, -ffn:] if shape.is_parallel else _empty(rows, ffn)
        targets = [
            (x, _empty(rows, shape.qkv_size), None),
            (x, activated, "gelu"),
            *((_empty(rows, size), _empty(rows, hidden), None) for size in sums),
            (x, _empty(rows, shape.vocab_size), None),
        ]
        for (source, out, activation), has_bias in product(targets, {False, shape.has_alibi}):
            for linear in _linears(out.shape[1], source.shape[1], activation, has_bias, is_stored=True).values():
                yield from linear.launches(source, out, capability)


@cache
def _linears(
    out_features: int,
    in_features: int,
    activation: str | None = None,
    has_bias: bool = False,
    *,
    more_groups: bool = False,
    is_stored: bool = False,
) -> dict[str, QuantizedLinear]:
    """Kind -> a linear of it."""
    bias = _empty(out_features) if has_bias else None
    weights = meta_weights(out_features, in_features, more_groups=more_groups)
    weights |= stored_weights(out_features, in_features) if is_stored else {}
    return {kind: QuantizedLinear(weight, bias, activation) for kind, weight in weights.items()}


def _empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")
