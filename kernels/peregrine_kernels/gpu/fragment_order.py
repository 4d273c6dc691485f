"""Quantized weights in the order in which tensor cores take them: a lane's share of 16 rows is 16 bytes in a row.

    row     16 * tile + 8 * rh + g
    column  columns * chunk + 16 * kt + 4 * t + 2 * kh + e      g < 8; t < 4; rh, kh, e < 2

is in the word of lane 4 g + t of [tile][chunk]: of 4-bit codes (64 columns a chunk, kt < 4) in word kt, nibble
rh + 2 kh + 4 e; of 8-bit ones (32 columns, kt < 2) in word 2 kt + rh, byte kh + 2 e. A chunk of a tile is 512 bytes,
which a warp reads at once, and e is so far apart that an operation on a word decodes a pair as instructions take it. A
scale's 16 rows are side by side. One layout serves every kernel and architecture.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from peregrine_kernels.gpu.kv_quant import raw
from peregrine_kernels.gpu.launch import Arguments, Constants
from peregrine_kernels.weights import (
    CodebookWeight,
    Float8Weight,
    Int4Weight,
    Int8Weight,
    QuantizedWeight,
    unpack_nibbles,
)

TILE_ROWS = 16
TILES_AT_A_TIME = 64
"""Tiles that are brought into order at a time: temporaries are a few times so many rows."""
COLUMNS = {"int4": 64, "codebook": 64, "int8": 32, "fp8": 32}
"""Kind -> columns of a chunk."""
_KINDS = {Int8Weight: "int8", Float8Weight: "fp8", Int4Weight: "int4", CodebookWeight: "codebook"}


@dataclass(frozen=True, slots=True, eq=False)
class FragmentWeight:
    """A weight [out, in] in fragment order, rows and columns padded with zero bits to whole tiles and chunks."""

    kind: str
    """A key of COLUMNS: how kernels name it."""
    shape: tuple[int, int]
    """(out, in)"""
    words: Tensor
    """int32[tiles, chunks, 32 lanes, 4]"""
    scales: Tensor
    """[tiles, groups, 16], one group where a row has one scale."""
    group_size: int
    """Inputs of a scale; 0: all."""
    zeros: Tensor | None = None
    """float32[tiles, groups, 16]; None: as the kind says."""
    table: Tensor | None = None
    """float32[16], of a codebook."""

    def arguments(self) -> tuple[Arguments, Constants]:
        """Arguments of every kernel: pointers, None for those that it lacks, and sizes; and constants."""
        arguments: Arguments = {
            **{"words": self.words, "scales": self.scales, "zeros": self.zeros, "table": self.table},
            **{"out_features": self.shape[0], "in_features": self.shape[1], "num_groups": self.scales.shape[1]},
        }
        return arguments, {
            **{"KIND": self.kind, "COLUMNS": COLUMNS[self.kind]},
            **{"GROUP": self.group_size, "HAS_ZEROS": self.zeros is not None},
        }

    def rows(self, rows: slice) -> "FragmentWeight":
        """Some rows, the first a multiple of 16; they share the memory."""
        tiles = slice(rows.start // TILE_ROWS, -(-rows.stop // TILE_ROWS))
        zeros = None if self.zeros is None else self.zeros[tiles]
        shape = rows.stop - rows.start, self.shape[1]
        return replace(self, shape=shape, words=self.words[tiles], scales=self.scales[tiles], zeros=zeros)


def fragment_order(weight: QuantizedWeight) -> FragmentWeight:
    """A weight in fragment order. Takes the memory of the weight once more, and of some rows."""
    kind = _KINDS[type(weight)]
    if isinstance(weight, Int8Weight | Float8Weight):
        words = _words(raw(weight.values).view(torch.uint8), *weight.shape, kind)
        return FragmentWeight(kind, weight.shape, words, _by_tile(weight.scales), 0)
    words, scales = _words(weight.packed, *weight.shape, kind), _by_tile(weight.scales)
    if isinstance(weight, CodebookWeight):
        return FragmentWeight(kind, weight.shape, words, scales, weight.group_size, table=weight.table)
    zeros = None if weight.zeros is None else _by_tile(weight.zeros)
    return FragmentWeight(kind, weight.shape, words, scales, weight.group_size, zeros)


def _words(codes: Tensor, out_features: int, in_features: int, kind: str) -> Tensor:
    """codes uint8[out, in], or two in a byte -> int32[tiles, chunks, 32, 4]."""
    tiles, chunks = -(-out_features // TILE_ROWS), -(-in_features // COLUMNS[kind])
    words = torch.empty(tiles, chunks, 32, 4, dtype=torch.int32, device=codes.device)
    for some in torch.split(torch.arange(tiles), TILES_AT_A_TIME):
        first, last = int(some[0]), int(some[-1]) + 1
        part = codes[first * TILE_ROWS : last * TILE_ROWS]
        part = unpack_nibbles(part) if COLUMNS[kind] == 64 else part
        missing = chunks * COLUMNS[kind] - in_features, (last - first) * TILE_ROWS - len(part)
        padded = pad(part, (0, missing[0], 0, missing[1]))
        ordered = padded.view(last - first, 2, 8, chunks, -1, 4, 2, 2)  # tile, rh, g, chunk, kt, t, kh, e
        if COLUMNS[kind] == 64:
            nibbles = ordered.permute(0, 3, 2, 5, 4, 7, 6, 1)
            packed = torch.bitwise_or(nibbles[..., 0], nibbles[..., 1] << 4)
        else:
            packed = ordered.permute(0, 3, 2, 5, 4, 1, 7, 6).contiguous()
        words[first:last] = packed.reshape(last - first, chunks, 32, 16).view(torch.int32)
    return words


def _by_tile(values: Tensor) -> Tensor:
    """values [out] or [out, groups] -> [tiles, groups, 16]."""
    values = values[:, None] if values.dim() == 1 else values
    padded = pad(values, (0, 0, 0, -len(values) % TILE_ROWS))
    return padded.view(-1, TILE_ROWS, padded.shape[1]).transpose(1, 2).contiguous()
