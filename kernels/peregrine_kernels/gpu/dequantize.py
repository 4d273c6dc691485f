"""Rows of a quantized weight as the values that it stands for, for a GEMM to read.

Sizes are arguments, not constants: one kernel a kind of weight serves every model.
"""

import triton
import triton.language as tl
from torch import Tensor

from peregrine_kernels.gpu.fragment_order import FragmentWeight
from peregrine_kernels.gpu.launch import Launch
from peregrine_kernels.gpu.packed_weight import fragment_tile, of_groups

TILES = 4


@triton.jit(do_not_specialize=["out_features", "num_groups"])
def dequantize_kernel(
    # pointers
    words,
    scales,
    zeros,
    table,
    out,
    # sizes
    out_features,
    in_features,
    num_groups,
    # constants
    KIND: tl.constexpr,
    COLUMNS: tl.constexpr,
    GROUP: tl.constexpr,
    HAS_ZEROS: tl.constexpr,
    TILES: tl.constexpr,
):
    """One program: a chunk of each of TILES."""
    num_chunks = tl.cdiv(in_features, COLUMNS)
    chunk = tl.program_id(1)
    tile = tl.minimum(tl.program_id(0) * TILES + tl.arange(0, TILES), tl.cdiv(out_features, 16) - 1).to(tl.int64)
    dtype: tl.constexpr = out.dtype.element_ty
    tiles, lane, word = tile[:, None, None], tl.arange(0, 32)[None, :, None], tl.arange(0, 4)[None, None, :]
    w = tl.load(words + (tiles * num_chunks + chunk) * 128 + lane * 4 + word).to(tl.uint32, bitcast=True)
    low = of_groups(scales, tiles, chunk, lane, word, num_groups, 0, GROUP)
    high = of_groups(scales, tiles, chunk, lane, word, num_groups, 1, GROUP)
    low_zero = of_groups(zeros, tiles, chunk, lane, word, num_groups, 0, GROUP) if HAS_ZEROS else None
    high_zero = of_groups(zeros, tiles, chunk, lane, word, num_groups, 1, GROUP) if HAS_ZEROS else None
    values = fragment_tile(w, table, low, high, low_zero, high_zero, KIND, dtype, True, HAS_ZEROS, "", 4)
    row = tl.program_id(0) * TILES * 16 + tl.arange(0, TILES * 16)
    column = chunk * COLUMNS + tl.arange(0, COLUMNS)
    at = out + row.to(tl.int64)[:, None] * in_features + column[None, :]
    tl.store(at, values, mask=(row < out_features)[:, None] & (column < in_features)[None, :])


def dequantize_launch(weight: FragmentWeight, out: Tensor) -> Launch:
    """weight [N, in] -> out [N, in], contiguous, its values rounded to the type of `out`."""
    tiles, chunks = weight.words.shape[:2]
    pointers, constants = weight.arguments()
    return Launch(
        dequantize_kernel,
        (triton.cdiv(tiles, TILES), chunks),
        {**pointers, "out": out},
        {**constants, "TILES": TILES},
        num_warps=4,
    )
