"""The PTX that decodes words, run instruction by instruction on integers and on torch's 16-bit floats."""

import re

import pytest
import torch

from peregrine_kernels.gpu import decode_asm
from peregrine_kernels.gpu.packed_weight import lop3

TYPES = {name: dtype for dtype, name in decode_asm.TYPES.items()}
ALL_BYTES = torch.arange(256, dtype=torch.uint8)


def run(text: str, dtype: str, word: int, *halves: int) -> list[int]:
    """The outputs $0, $1, ... of PTX without branches, given those after them."""
    count = min(int(each) for each in re.findall(r"\$(\d+)(?=,\s*0x|, \d+;|;)", text) if f"{{${each}" not in text)
    values = {f"${count + index}": value for index, value in enumerate((word, *halves))}
    for line in text.splitlines():
        operation, _, rest = line.rstrip(";").partition(" ")
        if operation in ("{", "}", ".reg"):
            continue
        target, operands = arguments(rest)
        step(operation, target, [read(each, values) for each in operands], values, TYPES[dtype])
    return [values[f"${index}"] for index in range(count)]


def arguments(text: str) -> tuple[str, list[str]]:
    """The target, braces included, and the operands of an instruction."""
    first, *others = re.findall(r"\{[^}]*\}|[^,\s]+", text)
    return first, others


def read(operand: str, values: dict[str, int]) -> int:
    if operand.startswith("{"):
        low, high = (values[each.strip()] for each in operand[1:-1].split(","))
        return low | high << 16
    return values[operand] if operand in values else int(operand, 0)


def step(operation: str, target: str, given: list[int], values: dict[str, int], dtype: torch.dtype) -> None:
    """One instruction."""
    match operation.split("."):
        case ["mov", "b32"]:
            result = given[0]
        case ["shr", "b32"]:
            result = given[0] >> given[1]
        case ["shl", "b32"]:
            result = given[0] << given[1] & 0xFFFFFFFF
        case ["and", "b32"]:
            result = given[0] & given[1]
        case ["lop3", "b32"]:
            result = lookup(*given)
        case ["fma", "rn", "bf16x2" | "f16x2"]:
            a, b, c = (halves(each, dtype).double() for each in given)
            result = bits((a * b + c).to(dtype))
        case _:
            raise AssertionError(f"{operation} has no meaning here")
    if target.startswith("{"):
        low, high = (each.strip() for each in target[1:-1].split(","))
        values[low], values[high] = result & 0xFFFF, result >> 16
    else:
        values[target] = result


def lookup(a: int, b: int, c: int, table: int) -> int:
    """Bit by bit the table's answer; its index has a's bit first."""
    at = [(a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1) for i in range(32)]
    return sum((table >> index & 1) << i for i, index in enumerate(at))


def halves(pair: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor([pair & 0xFFFF, pair >> 16], dtype=torch.int32).to(torch.uint16).view(dtype)


def bits(pair: torch.Tensor) -> int:
    low, high = pair.view(torch.uint16).tolist()
    return int(low | high << 16)


def as_floats(results: list[int], dtype: str) -> list[float]:
    return [halves(each, TYPES[dtype])[0].item() for each in results]


@pytest.mark.parametrize("dtype", TYPES)
def test_4_bits(dtype: str) -> None:
    """Nibble i is output i, less 8, whatever the others are."""
    for shift in range(16):
        nibbles = [(7 * index + shift) % 16 for index in range(8)]
        word = sum(nibble << 4 * index for index, nibble in enumerate(nibbles))
        assert as_floats(run(decode_asm.decode_asm("int4", dtype), dtype, word), dtype) == [
            nibble - 8 for nibble in nibbles
        ]


@pytest.mark.parametrize("dtype", TYPES)
def test_4_bits_scaled(dtype: str) -> None:
    """Even nibbles take the first scale, odd ones the second, and are rounded once."""
    scales = torch.tensor([0.0123, -3.75]).to(TYPES[dtype])
    nibbles = torch.tensor([0, 15, 3, 8, 9, 1, 14, 7])
    word = sum(int(nibble) << 4 * index for index, nibble in enumerate(nibbles))
    found = run(decode_asm.decode_asm("int4", dtype, is_scaled=True), dtype, word, *scales.view(torch.uint16).tolist())
    expected = ((nibbles - 8) * scales.repeat(4).float()).to(TYPES[dtype])
    assert as_floats(found, dtype) == expected.tolist()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_8_bits(kind: str, dtype: str) -> None:
    """Each of the 256 bytes at each place, but for what is not a number."""
    stored = ALL_BYTES.view(torch.int8 if kind == "int8" else torch.float8_e4m3fn).float().to(TYPES[dtype])
    text = decode_asm.decode_asm(kind, dtype)
    for code in range(256):
        if stored[code].isnan():
            continue
        codes = [code, 1, 0x83, 0x7E]
        for place in range(4):
            placed = codes[-place:] + codes[:-place]
            word = sum(each << 8 * index for index, each in enumerate(placed))
            assert as_floats(run(text, dtype, word), dtype) == stored[placed].tolist()


def test_one_operation_masks_and_magnifies() -> None:
    """(word & mask) ^ bits."""
    (found,) = run(lop3(0xF00, 0x4B000000), "bf16", 0x12345678)
    assert found == 0x12345678 & 0xF00 ^ 0x4B000000
