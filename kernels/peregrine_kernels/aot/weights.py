"""Quantized weights without storage, of every kind that a server packs on a GPU."""

import torch

from peregrine_kernels.weights import CodebookWeight, Float8Weight, Int4Weight, Int8Weight, QuantizedWeight

GROUP = 64
"""The size of groups wherever it divides a linear's inputs, as it does in every Falcon's on 1, 2, 4 and 8 ranks."""


def meta_weights(out_features: int, in_features: int, *, more_groups: bool = False) -> dict[str, QuantizedWeight]:
    """Kind -> a weight [out, in] on the device "meta"; int4 of other groups too, for the report."""
    with torch.device("meta"):
        codes = torch.empty(out_features, in_features, dtype=torch.int8)
        packed = torch.empty(out_features, in_features // 2, dtype=torch.uint8)
        groups, row_scales = torch.empty(out_features, in_features // GROUP), torch.empty(out_features)
        table = torch.empty(16)
    kinds: dict[str, QuantizedWeight] = {
        "int8": Int8Weight(codes, row_scales),
        "fp8": Float8Weight(codes.view(torch.float8_e4m3fn), row_scales),
        "int4": Int4Weight(packed, groups.bfloat16(), GROUP),
        "int4 with zeros": Int4Weight(packed, groups.bfloat16(), GROUP, groups),
        "codebook": CodebookWeight(packed, table, groups, GROUP),
    }
    for size in (32, 128) if more_groups else ():
        scales = torch.empty(out_features, in_features // size, dtype=torch.bfloat16, device="meta")
        kinds[f"int4 in groups of {size}"] = Int4Weight(packed, scales, size)
    return kinds
