"""Attention of prefill chunks: the last N tokens of each sequence over all of its pages, causally.

Rows are (token, query head) pairs of one KV head, token by token: BLOCK_M of them make a program whatever the group is,
so that 71 heads need no padding. A program reads the tiles of K and V that all its rows see without a mask, then those
on the diagonal with one; tiles beyond are never touched.
"""

from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from peregrine_kernels.gpu.attention_tile import attend_tile, attention_arguments, load_tile, softmax_scale
from peregrine_kernels.gpu.launch import Launch, capability_of
from peregrine_kernels.kv_cache import PagedBatch


@triton.jit
def prefill_attention_kernel(
    # pointers
    q,
    pages,
    scales,
    block_tables,
    positions,
    alibi_slopes,
    out,
    tiles,
    # strides
    stride_q_token,
    stride_out_token,
    stride_table,
    stride_page,
    stride_slot,
    stride_scale_page,
    stride_scale_slot,
    # constants
    GROUP: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SCALE: tl.constexpr,
    HAS_ALIBI: tl.constexpr,
    KIND: tl.constexpr,
):
    """tiles int32[programs, 4]: sequence, its first token's row of q, its number of tokens, and the program's first
    (token, head) row among them."""
    tile = tiles + tl.program_id(0) * 4
    kv_head = tl.program_id(1)
    sequence = tl.load(tile).to(tl.int64)
    first_token = tl.load(tile + 1).to(tl.int64)
    num_tokens = tl.load(tile + 2)
    first_row = tl.load(tile + 3)
    prefix = tl.load(positions + first_token).to(tl.int32)
    table = block_tables + sequence * stride_table
    dtype: tl.constexpr = q.dtype.element_ty

    row = first_row + tl.arange(0, BLOCK_M)
    token, head = row // GROUP, row % GROUP + kv_head * GROUP
    lane = tl.arange(0, BLOCK_D)
    is_element = (token < num_tokens)[:, None] & (lane < HEAD_DIM)[None, :]
    q_row = (first_token + token) * stride_q_token + head * HEAD_DIM
    q_tile = tl.load(q + q_row[:, None] + lane[None, :], mask=is_element, other=0.0)
    slope = 0.0
    if HAS_ALIBI:
        slope = tl.load(alibi_slopes + head)

    last = prefix + tl.minimum((first_row + BLOCK_M - 1) // GROUP, num_tokens - 1)
    position = tl.minimum(prefix + token, last)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    largest = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    seen_by_all = (prefix + first_row // GROUP + 1) // BLOCK_N * BLOCK_N
    for start in range(0, seen_by_all, BLOCK_N):
        k, v, k_scale, v_scale = load_tile(
            pages, scales, table, kv_head, start, last + 1, stride_page, stride_slot, stride_scale_page,
            stride_scale_slot, dtype, NUM_KV_HEADS, HEAD_DIM, BLOCK_D, BLOCK_SIZE, BLOCK_N, KIND, False,
        )  # fmt: skip
        acc, largest, total = attend_tile(
            q_tile, k, v, k_scale, v_scale, acc, largest, total, None, slope, start + tl.arange(0, BLOCK_N),
            SCALE, HAS_ALIBI, KIND, False,
        )  # fmt: skip
    for start in range(seen_by_all, last + 1, BLOCK_N):
        k, v, k_scale, v_scale = load_tile(
            pages, scales, table, kv_head, start, last + 1, stride_page, stride_slot, stride_scale_page,
            stride_scale_slot, dtype, NUM_KV_HEADS, HEAD_DIM, BLOCK_D, BLOCK_SIZE, BLOCK_N, KIND, True,
        )  # fmt: skip
        key = start + tl.arange(0, BLOCK_N)
        acc, largest, total = attend_tile(
            q_tile, k, v, k_scale, v_scale, acc, largest, total, key[None, :] <= position[:, None], slope, key,
            SCALE, HAS_ALIBI, KIND, True,
        )  # fmt: skip

    out_row = (first_token + token) * stride_out_token + head * HEAD_DIM
    result = (acc / total[:, None]).to(out.dtype.element_ty)
    tl.store(out + out_row[:, None] + lane[None, :], result, mask=is_element)


@dataclass(frozen=True, slots=True)
class Tile:
    """The tile that a program multiplies at a time, and its compile options."""

    rows: int
    """(token, head) rows: BLOCK_M"""
    keys: int
    """BLOCK_N"""
    num_warps: int

    @staticmethod
    def of(pages: Tensor, capability: int) -> "Tile":
        """The fastest for a head's dimension that keeps everything in registers."""
        head_dim, is_8_bit = pages.shape[-1], pages.dtype.itemsize == 1
        if head_dim <= 64:
            # 4 warps spill 40 bytes a thread (sm_80, Triton 3.7.1).
            return Tile(128, 64, 8)
        if head_dim <= 128 and capability >= 90:
            # 2,048 tokens of Falcon-11B in 125 us on an H200, where 8 warps on 128 x 32 take 206.
            return Tile(64, 64, 4)
        # The tile above spills 32 bytes a thread on sm_80; 128 rows of 8-bit pages spill 8 to 24.
        return Tile(64 if is_8_bit or head_dim > 128 else 128, 32, 8)


@dataclass(frozen=True, slots=True)
class PrefillTiles:
    """The programs of a step's prefill chunks."""

    tile: Tile
    table: Tensor
    """int32[programs, 4], as the kernel reads it; later tiles of a chunk, which see more, come first."""

    @staticmethod
    def of(batch: PagedBatch, group: int, pages: Tensor, capability: int | None = None) -> "PrefillTiles":
        """The programs of all sequences of `batch` but its decodes; `capability`: of the pages' device, if not
        given."""
        device = pages.device
        tile = Tile.of(pages, capability or capability_of(device))
        starts = np.cumsum((0, *batch.query_lengths))
        tiles = [
            (sequence, starts[sequence], batch.query_lengths[sequence], first)
            for sequence in range(batch.num_decodes, len(batch.query_lengths))
            for first in range(0, batch.query_lengths[sequence] * group, tile.rows)
        ]
        table = torch.from_numpy(np.array(tiles[::-1], dtype=np.int32).reshape(-1, 4))
        if device.type == "cuda":
            table = table.pin_memory()
        return PrefillTiles(tile, table.to(device, non_blocking=True))


def prefill_attention_launch(
    q: Tensor,
    block_tables: Tensor,
    positions: Tensor,
    pages: Tensor,
    alibi_slopes: Tensor | None,
    out: Tensor,
    tiles: PrefillTiles,
) -> Launch:
    """q, out [T, Hq * D] with row strides, positions [T], of the whole batch; slopes rounded to bfloat16's values."""
    arguments, constants = attention_arguments(q, block_tables, positions, pages, alibi_slopes, out)
    return Launch(
        prefill_attention_kernel,
        (len(tiles.table), pages.shape[3]),
        {**arguments, "tiles": tiles.table},
        {
            **constants,
            "BLOCK_M": tiles.tile.rows,
            "BLOCK_N": tiles.tile.keys,
            "SCALE": softmax_scale(pages.shape[-1]),
        },
        num_warps=tiles.tile.num_warps,
        num_stages=3,
    )
