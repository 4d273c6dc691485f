"""Weights in fragment order within kernels: the values that the codes of a word stand for.

A code's value is taken from where it is in the word, so that most need no shift: an integer becomes the last bits of a
float, whose magnitude is then subtracted. Conversion of integers would be a quarter as fast on sm_80.
"""

import triton
import triton.language as tl
from triton import constexpr_function


@constexpr_function
def place(KIND, INDEX):
    """By how many bits `placed_value` shifts the value of a code."""
    return {"int4": 4 * (INDEX % 4), "int8": 8 * (INDEX % 2)}.get(KIND, 0)


@constexpr_function
def lop3(MASK, BITS):
    """PTX of (word & MASK) ^ BITS: a AND b XOR c is 0x6A."""
    return f"lop3.b32 $0, $1, {MASK:#x}, {BITS:#x}, 0x6A;"


@triton.jit
def placed_value(words, table, INDEX: tl.constexpr, KIND: tl.constexpr, IS_COMPILED: tl.constexpr):
    """words uint32 -> float32: the value of each word's code INDEX, times 2^`place`, before scaling."""
    PLACE: tl.constexpr = place(KIND, INDEX)
    if KIND == "int4":
        half = words >> 16 if INDEX >= 4 else words
        return magnified(half, 15 << PLACE, 0x4B000000, IS_COMPILED) - (8388608.0 + (8 << PLACE))
    elif KIND == "int8":
        # The sign bit inverted, so that -128 is 0.
        half = words >> 16 if INDEX >= 2 else words
        return magnified(half, 255 << PLACE, 0x4B000000 | (128 << PLACE), IS_COMPILED) - (8388608.0 + (128 << PLACE))
    elif KIND == "fp8":
        # Exponent and mantissa of e4m3 at the place of a float32's, whose bias is 120 larger.
        top = words << tl.full([], 24 - 8 * INDEX, tl.uint32)
        bits = (top & 0x80000000) | ((top >> 4) & 0x07F00000)
        return bits.to(tl.float32, bitcast=True) * 1.329227995784916e36
    else:
        return tl.load(table + ((words >> (4 * INDEX)) & 15))


@triton.jit
def magnified(words, MASK: tl.constexpr, BITS: tl.constexpr, IS_COMPILED: tl.constexpr):
    """words uint32 -> (words & MASK) ^ BITS as float32. Of the expression, ptxas makes two operations."""
    if IS_COMPILED:
        bits = tl.inline_asm_elementwise(lop3(MASK, BITS), "=r,r", [words], tl.uint32, True, 1)
    else:
        bits = (words & MASK) ^ BITS
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def raw_value(words, table, INDEX: tl.constexpr, KIND: tl.constexpr):
    """words uint32 -> float32: the value of each word's code INDEX before scaling."""
    return placed_value(words, table, INDEX, KIND, False) * (1.0 / (1 << place(KIND, INDEX)))


@triton.jit
def fragment_tile(
    words,
    table,
    low_scale,
    high_scale,
    low_zero,
    high_zero,
    KIND: tl.constexpr,
    dtype: tl.constexpr,
    IS_SCALED: tl.constexpr,
    HAS_ZEROS: tl.constexpr,
    ASM: tl.constexpr,
    K_WIDTH: tl.constexpr,
):
    """words uint32[tiles, 32, 4] -> the chunk's values [16 tiles, columns] in `dtype`, in registers as the first
    operand of tensor cores has them, K_WIDTH columns side by side.

    `low_scale` and `low_zero` are of rows g, the high ones of rows g + 8: [tiles, 32, 1 or 4], or None; of 8 bits the
    low ones of a word's row. ASM is of `decode_asm`; "": the interpreter has none.
    """
    TILES: tl.constexpr = words.shape[0]
    KT: tl.constexpr = 4 if KIND == "int4" or KIND == "codebook" else 2
    if KT == 4:
        if ASM != "":
            if IS_SCALED:
                v0, v1, v2, v3, v4, v5, v6, v7 = tl.inline_asm_elementwise(
                    ASM,
                    "=h,=h,=h,=h,=h,=h,=h,=h,r,h,h",
                    [words, low_scale, high_scale],
                    (tl.int16, tl.int16, tl.int16, tl.int16, tl.int16, tl.int16, tl.int16, tl.int16),
                    True,
                    1,
                )
            else:
                v0, v1, v2, v3, v4, v5, v6, v7 = tl.inline_asm_elementwise(
                    ASM,
                    "=h,=h,=h,=h,=h,=h,=h,=h,r",
                    [words],
                    (tl.int16, tl.int16, tl.int16, tl.int16, tl.int16, tl.int16, tl.int16, tl.int16),
                    True,
                    1,
                )
        else:
            v0 = scaled_value(words, table, low_scale, low_zero, 0, KIND, dtype, IS_SCALED, HAS_ZEROS)
            v1 = scaled_value(words, table, high_scale, high_zero, 1, KIND, dtype, IS_SCALED, HAS_ZEROS)
            v2 = scaled_value(words, table, low_scale, low_zero, 2, KIND, dtype, IS_SCALED, HAS_ZEROS)
            v3 = scaled_value(words, table, high_scale, high_zero, 3, KIND, dtype, IS_SCALED, HAS_ZEROS)
            v4 = scaled_value(words, table, low_scale, low_zero, 4, KIND, dtype, IS_SCALED, HAS_ZEROS)
            v5 = scaled_value(words, table, high_scale, high_zero, 5, KIND, dtype, IS_SCALED, HAS_ZEROS)
            v6 = scaled_value(words, table, low_scale, low_zero, 6, KIND, dtype, IS_SCALED, HAS_ZEROS)
            v7 = scaled_value(words, table, high_scale, high_zero, 7, KIND, dtype, IS_SCALED, HAS_ZEROS)
        values = tl.join(tl.join(tl.join(v0, v1), tl.join(v2, v3)), tl.join(tl.join(v4, v5), tl.join(v6, v7)))
    else:
        if ASM != "":
            v0, v1, v2, v3 = tl.inline_asm_elementwise(
                ASM, "=h,=h,=h,=h,r", [words], (tl.int16, tl.int16, tl.int16, tl.int16), True, 1
            )
        else:
            v0 = scaled_value(words, table, low_scale, None, 0, KIND, dtype, IS_SCALED, False)
            v1 = scaled_value(words, table, low_scale, None, 1, KIND, dtype, IS_SCALED, False)
            v2 = scaled_value(words, table, low_scale, None, 2, KIND, dtype, IS_SCALED, False)
            v3 = scaled_value(words, table, low_scale, None, 3, KIND, dtype, IS_SCALED, False)
        values = tl.join(tl.join(v0, v1), tl.join(v2, v3))
    if ASM != "":
        values = values.to(dtype, bitcast=True)
    values = tl.reshape(values, (TILES, 8, 4, KT, 2, 2, 2))  # tile, g, t, kt, rh, kh, e
    values = tl.permute(values, (0, 4, 1, 3, 2, 5, 6)) if K_WIDTH == 4 else tl.permute(values, (0, 4, 1, 3, 5, 2, 6))
    return tl.reshape(values, (16 * TILES, 16 * KT))


@triton.jit
def of_groups(values, tile, chunk, lane, word, num_groups, RH: tl.constexpr, GROUP: tl.constexpr):
    """Values [tiles, groups, 16] of each word's group, in the shape that the words' indices have together, or with
    dimensions of 1 where words are alike. Of rows g + 8 RH; where a row is one group, of the word's row."""
    if GROUP == 0:
        return tl.load(values + tile * 16 + (lane // 4 + word % 2 * 8))
    else:
        column = chunk * 64 if GROUP % 64 == 0 else chunk * 64 + word * 16 + lane % 4 * 4
        group = column // GROUP
        return tl.load(values + (tile * num_groups + tl.minimum(group, num_groups - 1)) * 16 + (lane // 4 + 8 * RH))


@triton.jit
def scaled_value(
    words,
    table,
    scale,
    zero,
    INDEX: tl.constexpr,
    KIND: tl.constexpr,
    dtype: tl.constexpr,
    IS_SCALED: tl.constexpr,
    HAS_ZEROS: tl.constexpr,
):
    """words uint32 -> the value of each word's code INDEX, rounded once to `dtype`."""
    value = raw_value(words, table, INDEX, KIND)
    if HAS_ZEROS:
        value -= zero - 8.0
    if IS_SCALED:
        value *= scale.to(tl.float32)
    return value.to(dtype)
