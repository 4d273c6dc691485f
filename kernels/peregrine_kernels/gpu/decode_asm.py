"""PTX that decodes a word of a weight in fragment order to pairs of 16-bit floats, two codes an operation.

An integer's bits become the last ones of a float of magnitude 2^7 (bfloat16) or 2^10 (float16), which is subtracted.
Of the compiler's own code for the same, each code takes operations of its own.
"""

from collections.abc import Iterator

import torch

TYPES = {torch.bfloat16: "bf16", torch.float16: "f16"}
"""As PTX names them."""
MAGIC = {"bf16": 0x4300, "f16": 0x6400}
"""128 and 1024: the last bits of their significands are units."""
ONE = {"bf16": 0x3F80, "f16": 0x3C00}
MINUS_MAGIC_8 = {"bf16": 0xC308, "f16": 0xE408}
"""-(128 + 8) and -(1024 + 8)."""
FP8_SHIFT = {"bf16": 4, "f16": 1}
"""From a byte at the top of a half to the place of its exponent and mantissa."""
FP8_BIAS = {"bf16": 0x7B80, "f16": 0x5C00}
"""2^120 and 2^8: the difference of the exponents' biases, as a factor."""
SIGN = 0x8000


def decode_asm(kind: str, dtype: str, is_scaled: bool = False) -> str:
    """PTX from a word, its last inputs scales of rows g and g + 8 if scaled, to its 8 (int4) or 4 values by number."""
    count = 8 if kind == "int4" else 4
    lines = {"int4": _int4, "int8": _int8, "fp8": _fp8}[kind](dtype, f"${count}", is_scaled)
    return "\n".join(["{", ".reg .b32 w, p, q, s0, s1, a, b, zero;", f"mov.b32 zero, {_pair(SIGN)};", *lines, "}"])


def _int4(dtype: str, word: str, is_scaled: bool) -> Iterator[str]:
    if is_scaled:
        yield "mov.b32 s0, {$9, $9};"
        yield "mov.b32 s1, {$10, $10};"
    yield f"mov.b32 a, {_pair(ONE[dtype])};"
    yield f"mov.b32 b, {_pair(MINUS_MAGIC_8[dtype])};"
    for index in range(4):
        yield f"shr.b32 w, {word}, {4 * index};"
        yield f"lop3.b32 p, w, 0x000F000F, {_pair(MAGIC[dtype])}, 0xEA;"
        yield f"fma.rn.{dtype}x2 p, p, a, b;"
        if is_scaled:
            yield f"fma.rn.{dtype}x2 p, p, s{index % 2}, zero;"
        yield f"mov.b32 {{${index}, ${index + 4}}}, p;"


def _int8(dtype: str, word: str, is_scaled: bool) -> Iterator[str]:
    """The low seven bits, less 128 where the sign bit is: it doubles (or raises by 128) what is subtracted."""
    yield f"mov.b32 a, {_pair(ONE[dtype] | SIGN)};"
    for index in range(2):
        yield f"shr.b32 w, {word}, {8 * index};"
        yield f"lop3.b32 p, w, 0x007F007F, {_pair(MAGIC[dtype])}, 0xEA;"
        yield f"lop3.b32 q, w, 0x00800080, {_pair(MAGIC[dtype])}, 0xEA;"
        yield f"fma.rn.{dtype}x2 p, q, a, p;"
        yield f"mov.b32 {{${index}, ${index + 2}}}, p;"


def _fp8(dtype: str, word: str, is_scaled: bool) -> Iterator[str]:
    yield f"mov.b32 a, {_pair(FP8_BIAS[dtype])};"
    for index in range(2):
        yield f"shl.b32 w, {word}, {8 - 8 * index};"
        yield "and.b32 q, w, 0x7F007F00;"
        yield f"shr.b32 q, q, {FP8_SHIFT[dtype]};"
        yield "lop3.b32 p, w, 0x80008000, q, 0xEA;"
        yield f"fma.rn.{dtype}x2 p, p, a, zero;"
        yield f"mov.b32 {{${index}, ${index + 2}}}, p;"


def _pair(half: int) -> str:
    return f"0x{half:04X}{half:04X}"
