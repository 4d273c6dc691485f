"""The header of a GGUF file: metadata of the model, and the places of its tensors. Imports no torch.

It comes from the internet, and is believed in nothing: no count or length makes memory that the file has no bytes for.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from peregrine_server.models.errors import AGAIN, ConfigError, UnsupportedModel

MAX_HEADER_BYTES = 16 * 2**20
"""A bound: with a vocabulary of 65,024 tokens and its merges a header has 3 MB."""
MAX_ENTRIES = 2**20
"""A bound on keys, tensors and elements of an array: the largest vocabularies have half as many merges."""
MAX_DIMENSIONS = 4
VERSIONS = 2, 3
ARCHITECTURE_KEY = "general.architecture"
ALIGNMENT_KEY, DEFAULT_ALIGNMENT = "general.alignment", 32
"""Tensors begin at multiples of it."""
LFS_POINTER = b"version "
"""First bytes of what `git clone` leaves in place of a large file where Git LFS is not installed."""
OLD_MAGICS = b"lmgg", b"fmgg", b"tjgg", b"algg", b"ccgg"
"""First bytes of llama.cpp's formats before GGUF, and of ggllm.cpp's, its fork for this family of models."""

Value = int | float | bool | str | tuple["int | float | bool | str", ...]
_SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
"""Number of a value's type -> its letter in `struct`."""
_STRING, _ARRAY = 8, 9


class BlockType(NamedTuple):
    """How weights are stored: blocks of consecutive ones of a row, each with its scales."""

    name: str
    size: int
    """Weights of a block."""
    num_bytes: int


BLOCK_TYPES = {
    0: BlockType("F32", 1, 4),
    1: BlockType("F16", 1, 2),
    2: BlockType("Q4_0", 32, 18),
    3: BlockType("Q4_1", 32, 20),
    6: BlockType("Q5_0", 32, 22),
    7: BlockType("Q5_1", 32, 24),
    8: BlockType("Q8_0", 32, 34),
    12: BlockType("Q4_K", 256, 144),
    13: BlockType("Q5_K", 256, 176),
    14: BlockType("Q6_K", 256, 210),
    20: BlockType("IQ4_NL", 32, 18),
    30: BlockType("BF16", 1, 2),
}
"""Types that are read, by their number in ggml.h."""
OTHER_TYPES = {
    **{10: "Q2_K", 11: "Q3_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S"},
    **{23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4"},
}
"""Names of types that files have and that are not read."""
BY_NAME = {each.name: each for each in BLOCK_TYPES.values()}
FOUR_BITS = "Q4_0", "Q4_1", "Q4_K", "IQ4_NL"
"""Types of 4-bit codes with a scale for every 32 weights."""


class GgufTensor(NamedTuple):
    """A tensor as the header describes it."""

    shape: tuple[int, ...]
    """Rows first, as torch has it: the file has the width first."""
    type: BlockType
    offset: int
    """Position of its first byte in the file."""

    @property
    def row_bytes(self) -> int:
        return self.shape[-1] // self.type.size * self.type.num_bytes

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape[:-1]) * self.row_bytes


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """One file's header."""

    path: Path
    metadata: dict[str, Value]
    tensors: dict[str, GgufTensor]
    """All of them lie within the file."""


def read_header(path: Path, architectures: Collection[str] | None = None) -> GgufHeader:
    """Reads the header of the file `path`. Raises ConfigError if it is damaged, UnsupportedModel if it is of another
    kind, or of none of `architectures`, one line each."""
    try:
        with path.open("rb") as file:
            return _read(path, file, architectures)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def _read(path: Path, file: BinaryIO, architectures: Collection[str] | None) -> GgufHeader:
    size = os.fstat(file.fileno()).st_size
    read = _Reader(path, file, min(size, MAX_HEADER_BYTES))
    _check_kind(path, read.take(4), read.take(4))
    num_tensors, num_keys = read.count(), read.count()
    metadata: dict[str, Value] = {}
    for _ in range(num_keys):
        key = read.text()
        metadata[key] = read.value(read.number("I"))
        # At once: the types of another model's tensors, or the size of its vocabulary, say less.
        if key == ARCHITECTURE_KEY and architectures is not None:
            check_architecture(path, metadata, architectures)
    found = [read.tensor() for _ in range(num_tensors)]
    alignment = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 2**16:
        raise ConfigError(f"{path}: {ALIGNMENT_KEY} {alignment!r:.80} is no alignment; {AGAIN}")
    start = -(-read.position // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for name, tensor in found:
        if name in tensors or tensor.offset % alignment:
            raise ConfigError(f"{path}: tensor {name!r:.200} is there twice, or out of line; {AGAIN}")
        tensors[name] = tensor._replace(offset=start + tensor.offset)
        if tensors[name].offset + tensor.num_bytes > size:
            raise ConfigError(f"{path} is truncated: {size} bytes do not hold tensor {name!r:.200}; {AGAIN}")
    return GgufHeader(path, metadata, tensors)


def check_architecture(path: Path, metadata: Mapping[str, Value], architectures: Collection[str]) -> None:
    """Raises UnsupportedModel if the model in the file `path` is of none of `architectures`."""
    if (found := metadata.get(ARCHITECTURE_KEY)) not in architectures:
        known = ", ".join(architectures)
        raise UnsupportedModel(f"{path}: its architecture {found!r:.80} is not supported: give a model of {known}")


def _check_kind(path: Path, magic: bytes, version_bytes: bytes) -> None:
    if magic + version_bytes == LFS_POINTER:
        raise ConfigError(f"{path} is a pointer of Git LFS, not the file: run `git lfs pull` there, or download it")
    if magic in OLD_MAGICS:
        raise UnsupportedModel(f"{path} is of the format before GGUF, which is not read: convert the model anew")
    if magic != b"GGUF":
        raise ConfigError(f"{path} is no GGUF file: it begins with {magic!r}; {AGAIN}")
    version = int.from_bytes(version_bytes, "little")
    if version & 0xFFFF == 0:
        raise UnsupportedModel(f"{path} is a GGUF file for big-endian machines, which is not read: give the other one")
    if version not in VERSIONS:
        known = ", ".join(map(str, VERSIONS))
        raise UnsupportedModel(f"{path} is of version {version} of GGUF; known are {known}: convert the model anew")


class _Reader:
    """Reads one value after the other. Raises ConfigError where the file ends, or the header is too long."""

    def __init__(self, path: Path, file: BinaryIO, end: int) -> None:
        self._path, self._file, self._end = path, file, end
        self.position = 0

    def take(self, num_bytes: int) -> bytes:
        """The next bytes. Nothing is allocated for more than are there."""
        if num_bytes <= self._end - self.position:
            data = self._file.read(num_bytes)
            self.position += num_bytes
            if len(data) == num_bytes:
                return data
        raise ConfigError(f"{self._path} is truncated, or its header is damaged, after byte {self.position}; {AGAIN}")

    def number(self, letter: str) -> int:
        value: int = struct.unpack(f"<{letter}", self.take(struct.calcsize(f"<{letter}")))[0]
        return value

    def count(self) -> int:
        """A number of entries."""
        number = self.number("Q")
        if number > MAX_ENTRIES:
            raise ConfigError(
                f"{self._path}: its header counts {number} entries, {MAX_ENTRIES} at most make sense; {AGAIN}"
            )
        return number

    def text(self) -> str:
        try:
            return self.take(self.number("Q")).decode()
        except UnicodeDecodeError:
            raise ConfigError(f"{self._path} has a text that is none before byte {self.position}; {AGAIN}") from None

    def value(self, kind: int) -> Value:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.scalars(kind, 1)[0]
        element, count = self.number("I"), self.count()
        if element == _STRING:
            return tuple(self.text() for _ in range(count))
        return self.scalars(element, count)

    def scalars(self, kind: int, count: int) -> tuple[int | float | bool, ...]:
        if kind not in _SCALARS:
            raise ConfigError(f"{self._path} has a value of unknown type {kind} in its header; {AGAIN}")
        form = f"<{count}{_SCALARS[kind]}"
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def tensor(self) -> tuple[str, GgufTensor]:
        """Name and description; the offset is that in the tensors' part of the file."""
        name, num_dimensions = self.text(), self.number("I")
        if not 0 < num_dimensions <= MAX_DIMENSIONS:
            raise ConfigError(f"{self._path}: tensor {name!r:.200} has {num_dimensions} dimensions; {AGAIN}")
        shape = tuple(self.number("Q") for _ in range(num_dimensions))[::-1]
        kind, offset = self.number("I"), self.number("Q")
        if kind not in BLOCK_TYPES:
            raise UnsupportedModel(
                f"{self._path}: tensor {name!r:.200} is of type {OTHER_TYPES.get(kind, kind)}, which is not read: give "
                f"a file with no other types than {', '.join(BY_NAME)}"
            )
        if not all(shape) or shape[-1] % BLOCK_TYPES[kind].size:
            raise ConfigError(f"{self._path}: tensor {name!r:.200} has no whole blocks; {AGAIN}")
        return name, GgufTensor(shape, BLOCK_TYPES[kind], offset)
