"""Rows of an 8-bit weight in fragment order brought back side by side, for a GEMM that takes 8 bits."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from peregrine_kernels.gpu.fragment_order import COLUMNS, FragmentWeight
from peregrine_kernels.gpu.launch import Launch

TILES, CHUNKS = 2, 4
"""Tiles and chunks of a program: 32 rows of 128 bytes, a line of memory each."""


@triton.jit(do_not_specialize=["num_tiles", "num_chunks", "out_features"])
def row_major_kernel(
    # pointers
    words,
    out,
    # sizes
    num_tiles,
    num_chunks,
    out_features,
    # strides
    stride_out,
    # constants
    TILES: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """One program: CHUNKS of each of TILES. A word's bytes are four columns, of which the second and third are
    exchanged, and its place is theirs in the row (`fragment_order.py`)."""
    tile = (tl.program_id(0) * TILES + tl.arange(0, TILES)).to(tl.int64)[:, None, None]
    chunk = (tl.program_id(1) * CHUNKS + tl.arange(0, CHUNKS))[None, :, None]
    is_chunk = (tile < num_tiles) & (chunk < num_chunks)
    at = words + (tile * num_chunks + chunk) * 128 + tl.arange(0, 128)[None, None, :]
    w = tl.load(at, mask=is_chunk, other=0).to(tl.uint32, bitcast=True)
    w = (w & 0xFF0000FF) | ((w & 0x0000FF00) << 8) | ((w & 0x00FF0000) >> 8)
    w = tl.reshape(w, (TILES, CHUNKS, 8, 4, 2, 2))  # tile, chunk, g, t, kt, rh
    w = tl.reshape(tl.permute(w, (0, 5, 2, 1, 4, 3)), (16 * TILES, 8 * CHUNKS))
    row = tl.program_id(0) * TILES * 16 + tl.arange(0, TILES * 16)
    column = tl.program_id(1) * CHUNKS * 8 + tl.arange(0, CHUNKS * 8)
    is_word = (row < out_features)[:, None] & (column < stride_out)[None, :]
    to = out + row.to(tl.int64)[:, None] * stride_out + column[None, :]
    tl.store(to, w.to(tl.int32, bitcast=True), mask=is_word)


def row_major_launch(weight: FragmentWeight, out: Tensor) -> Launch:
    """weight [N, in] of 8 bits, `in` a multiple of 4 -> its codes `out` [N, in], contiguous, of any type of 8 bits."""
    assert COLUMNS[weight.kind] == 32
    tiles, chunks = weight.words.shape[:2]
    words = out.view(torch.int32)
    return Launch(
        row_major_kernel,
        (triton.cdiv(tiles, TILES), triton.cdiv(chunks, CHUNKS)),
        {
            **{"words": weight.words, "out": words, "num_tiles": tiles, "num_chunks": chunks},
            **{"out_features": weight.shape[0], "stride_out": words.stride(0)},
        },
        {"TILES": TILES, "CHUNKS": CHUNKS},
        num_warps=4,
    )
