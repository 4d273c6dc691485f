"""A linear of one row of a quantized weight: y = f(W x + bias), rounded before each of the two.

The weight is read once, 16 bytes a lane, and its codes are multiplied in float32 as they lie in a word.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from peregrine_kernels.gpu.activation import NAMES, finished
from peregrine_kernels.gpu.fragment_order import FragmentWeight
from peregrine_kernels.gpu.launch import Launch
from peregrine_kernels.gpu.packed_weight import of_groups, place, placed_value

CHUNKS = 8
"""Chunks of a tile at a time, one a warp: with 4,544 outputs, 284 programs have 4 KiB each under way a stage."""
STAGES = 4


@triton.jit
def dot_of_codes(words, table, x_0, x_1, x_2, x_3, RH: tl.constexpr, KIND: tl.constexpr, IS_COMPILED: tl.constexpr):
    """words uint32 -> float32: the sum of each word's codes of rows g + 8 RH, or of 8 bits of the word's row, times the
    inputs that they are multiplied with, before scaling; 2^`place` of RH times as large."""
    STEP: tl.constexpr = 2 if KIND == "int4" or KIND == "codebook" else 1
    sums = placed_value(words, table, RH, KIND, IS_COMPILED) * x_0
    sums += placed_value(words, table, RH + 2 * STEP, KIND, IS_COMPILED) * x_1
    sums += placed_value(words, table, RH + STEP, KIND, IS_COMPILED) * x_2
    return sums + placed_value(words, table, RH + 3 * STEP, KIND, IS_COMPILED) * x_3


@triton.jit
def products(
    x,
    words,
    scales,
    zeros,
    table,
    in_features,
    num_groups,
    first,
    KIND: tl.constexpr,
    COLUMNS: tl.constexpr,
    GROUP: tl.constexpr,
    HAS_ZEROS: tl.constexpr,
    TILES: tl.constexpr,
    CHUNKS: tl.constexpr,
    IS_COMPILED: tl.constexpr,
    IS_WHOLE: tl.constexpr,
):
    """The sums of each word of CHUNKS chunks of the program's tiles [TILES, CHUNKS, 32, 4], for rows g and g + 8; of 8
    bits, for the word's row and nothing."""
    num_chunks = tl.cdiv(in_features, COLUMNS)
    tile = (tl.program_id(0) * TILES + tl.arange(0, TILES))[:, None, None, None].to(tl.int64)
    chunk = first + tl.arange(0, CHUNKS)[None, :, None, None]
    lane, word = tl.arange(0, 32)[None, None, :, None], tl.arange(0, 4)[None, None, None, :]
    kt = word if COLUMNS == 64 else word // 2
    column = (chunk * COLUMNS + kt * 16 + lane % 4 * 4)[:, :, :, :, None] + tl.arange(0, 4)[None, None, None, None, :]
    if IS_WHOLE:
        columns = tl.load(x + column).to(tl.float32)
    else:
        columns = tl.load(x + column, mask=column < in_features, other=0.0).to(tl.float32)
        chunk = tl.minimum(chunk, num_chunks - 1)
    w = tl.load(words + (tile * num_chunks + chunk) * 128 + lane * 4 + word).to(tl.uint32, bitcast=True)
    x_02, x_13 = tl.split(columns.reshape([1, CHUNKS, 32, 4, 2, 2]))
    x_0, x_2 = tl.split(x_02)
    x_1, x_3 = tl.split(x_13)
    # Codes of inputs 2 and 3 are 8 bits further up in a word.
    LATER: tl.constexpr = 1.0 / 256 if KIND == "int4" or KIND == "int8" else 1.0
    later_2, later_3 = x_2 * LATER, x_3 * LATER
    low = dot_of_codes(w, table, x_0, x_1, later_2, later_3, 0, KIND, IS_COMPILED)
    if COLUMNS == 32:
        return low, low
    else:
        HIGH: tl.constexpr = 1.0 / (1 << place(KIND, 1))
        high = dot_of_codes(w, table, x_0, x_1, later_2, later_3, 1, KIND, IS_COMPILED)
        if HAS_ZEROS:
            total = x_0 + x_1 + x_2 + x_3
            low -= (of_groups(zeros, tile, chunk, lane, word, num_groups, 0, GROUP) - 8.0) * total
            high -= (of_groups(zeros, tile, chunk, lane, word, num_groups, 1, GROUP) - 8.0) * (total / HIGH)
        low_scale = of_groups(scales, tile, chunk, lane, word, num_groups, 0, GROUP).to(tl.float32)
        high_scale = of_groups(scales, tile, chunk, lane, word, num_groups, 1, GROUP).to(tl.float32) * HIGH
        return low * low_scale, high * high_scale


@triton.jit(do_not_specialize=["num_groups"])
def quantized_gemv_kernel(
    # pointers
    x,
    words,
    scales,
    zeros,
    table,
    bias,
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
    CHUNKS: tl.constexpr,
    STAGES: tl.constexpr,
    IS_COMPILED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """One program: 16 TILES outputs. Each thread sums columns of its own."""
    dtype: tl.constexpr = x.dtype.element_ty
    low = tl.zeros([TILES, CHUNKS, 32, 4], tl.float32)
    high = tl.zeros([TILES, CHUNKS, 32, 4], tl.float32)
    num_chunks = tl.cdiv(in_features, COLUMNS)
    whole = in_features // (COLUMNS * CHUNKS) * CHUNKS
    for first in tl.range(0, whole, CHUNKS, num_stages=STAGES):
        more_low, more_high = products(
            x, words, scales, zeros, table, in_features, num_groups, first, KIND, COLUMNS, GROUP, HAS_ZEROS, TILES,
            CHUNKS, IS_COMPILED, True
        )  # fmt: skip
        low += more_low
        high += more_high
    if whole < num_chunks:
        more_low, more_high = products(
            x, words, scales, zeros, table, in_features, num_groups, whole, KIND, COLUMNS, GROUP, HAS_ZEROS, TILES,
            CHUNKS, IS_COMPILED, False
        )  # fmt: skip
        low += more_low
        high += more_high
    if COLUMNS == 32:
        sums = tl.sum(low.reshape([TILES, CHUNKS, 8, 4, 2, 2]), 4)
    else:
        sums = tl.join(tl.sum(low, 3), tl.sum(high, 3)).reshape([TILES, CHUNKS, 8, 4, 2])
    y = tl.sum(tl.sum(sums, 3), 1)
    row = tl.arange(0, 8)[None, :, None] + tl.arange(0, 2)[None, None, :] * 8
    output = (tl.program_id(0) * TILES + tl.arange(0, TILES))[:, None, None] * 16 + row
    is_output = output < out_features
    if GROUP == 0:
        y *= tl.load(scales + output, mask=is_output, other=0.0)
    y = finished(y, bias, output, is_output, dtype, HAS_BIAS, ACTIVATION)
    tl.store(out + output, y.to(dtype), mask=is_output)


def quantized_gemv_launch(
    x: Tensor, weight: FragmentWeight, bias: Tensor | None, activation: str | None, out: Tensor
) -> Launch:
    """x [1, in], weight [out, in], bias [out] -> out [1, out]."""
    arguments, constants = weight.arguments()
    tiles = 2 if len(weight.words) % 2 == 0 and weight.shape[0] >= 8192 else 1
    return Launch(
        quantized_gemv_kernel,
        (len(weight.words) // tiles,),
        {"x": x, **arguments, "bias": bias, "out": out},
        {
            **constants,
            "TILES": tiles,
            "CHUNKS": CHUNKS,
            "STAGES": 1 if weight.kind == "codebook" else STAGES,
            "IS_COMPILED": not knobs.runtime.interpret,
            "HAS_BIAS": bias is not None,
            "ACTIVATION": "" if activation is None else NAMES[activation],
        },
        num_warps=CHUNKS,
    )
