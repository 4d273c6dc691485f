"""Quantized weights without storage, of every kind that a server packs on a GPU."""

import torch

from peregrine_kernels.weights import CodebookWeight, Float8Weight, Int4Weight, Int8Weight, QuantizedWeight

GROUP = 64
"""The size of groups wherever it divides a linear's inputs, as it does in every Falcon's on 1, 2, 4 and 8 ranks."""
STORED_GROUP = 32
"""The size of groups of GGUF's types, and of other checkpoints with smaller groups than GROUP: those of larger ones are
divided."""


def meta_weights(out_features: int, in_features: int, *, more_groups: bool = False) -> dict[str, QuantizedWeight]:
    """Kind -> a weight [out, in] on the device "meta"; int4 of other groups too, for the report."""
    with torch.device("meta"):
        codes, row_scales = torch.empty(out_features, in_features, dtype=torch.int8), torch.empty(out_features)
    kinds: dict[str, QuantizedWeight] = {
        "int8": Int8Weight(codes, row_scales),
        "fp8": Float8Weight(codes.view(torch.float8_e4m3fn), row_scales),
        **_grouped(out_features, in_features, GROUP),
    }
    for size in (32, 128) if more_groups else ():
        kinds[f"int4 in groups of {size}"] = _grouped(out_features, in_features, size)["int4"]
    return kinds


def stored_weights(out_features: int, in_features: int) -> dict[str, QuantizedWeight]:
    """The same of what checkpoints hold, beside `meta_weights`."""
    kinds = _grouped(out_features, in_features, STORED_GROUP)
    return {f"{kind} in groups of {STORED_GROUP}": weight for kind, weight in kinds.items()}


def _grouped(out_features: int, in_features: int, size: int) -> dict[str, QuantizedWeight]:
    with torch.device("meta"):
        packed = torch.empty(out_features, in_features // 2, dtype=torch.uint8)
        groups, table = torch.empty(out_features, in_features // size), torch.empty(16)
    return {
        "int4": Int4Weight(packed, groups.bfloat16(), size),
        "int4 with zeros": Int4Weight(packed, groups.bfloat16(), size, groups),
        "codebook": CodebookWeight(packed, table, groups, size),
    }
