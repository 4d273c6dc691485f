"""Parts that decode and prefill attention share: tiles of K and V through a block table, softmax a tile at a time.

Scores are kept in base 2 (exp2 is one instruction), so "scale" is log2(e) / sqrt(D):

    s = (q.k + alibi) * scale        p = 2 ** (s - max s)        out = sum p v / sum p
    alibi = slope * position, rounded; slopes are of values that bfloat16 has
"""

import math

import triton
import triton.language as tl
from torch import Tensor

from peregrine_kernels.gpu.kv_quant import KINDS, decode, raw
from peregrine_kernels.gpu.launch import Arguments, Constants
from peregrine_kernels.kv_cache import scales_of

LOG2_E = 1.4426950408889634


@triton.jit
def tokens_of(base, table, start, end, stride_page, stride_slot, BLOCK_SIZE: tl.constexpr, BLOCK_N: tl.constexpr):
    """Pointers [BLOCK_N] to the tokens from `start` on, those from `end` on being anywhere in the pages at `base`."""
    lane = tl.arange(0, BLOCK_N)
    if BLOCK_SIZE % BLOCK_N == 0:
        # A tile lies within a page: one scalar load finds it, and only a scalar differs from tile to tile.
        page = tl.load(table + start // BLOCK_SIZE).to(tl.int64)
        return base + page * stride_page + start % BLOCK_SIZE * stride_slot + lane * stride_slot
    else:
        token = tl.minimum(start + lane, end - 1)
        pages = tl.load(table + token // BLOCK_SIZE).to(tl.int64)
        return base + pages * stride_page + token % BLOCK_SIZE * stride_slot


@triton.jit
def load_heads(tokens, is_token, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, IS_MASKED: tl.constexpr):
    """[BLOCK_N, BLOCK_D] of K or V at `tokens`; zeros beyond HEAD_DIM and, if masked, where there is no token."""
    lane = tl.arange(0, BLOCK_D)
    x = tokens[:, None] + lane[None, :]
    # What no token was written to may be NaN, which no weight of 0 would remove.
    if IS_MASKED:
        return tl.load(x, mask=is_token[:, None] & (lane < HEAD_DIM)[None, :], other=0)
    elif HEAD_DIM != BLOCK_D:
        return tl.load(x, mask=(lane < HEAD_DIM)[None, :], other=0)
    else:
        return tl.load(x)


@triton.jit
def load_tile(
    pages,
    scales,
    table,
    kv_head,
    start,
    end,
    stride_page,
    stride_slot,
    stride_scale_page,
    stride_scale_slot,
    dtype: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    KIND: tl.constexpr,
    IS_MASKED: tl.constexpr,
):
    """K and V [BLOCK_N, BLOCK_D] of a KV head's tokens from `start` on, and their scales (1 where they have none)."""
    is_token = start + tl.arange(0, BLOCK_N) < end
    heads = pages + kv_head * HEAD_DIM
    tokens = tokens_of(heads, table, start, end, stride_page, stride_slot, BLOCK_SIZE, BLOCK_N)
    k = load_heads(tokens, is_token, HEAD_DIM, BLOCK_D, IS_MASKED)
    v = load_heads(tokens + NUM_KV_HEADS * HEAD_DIM, is_token, HEAD_DIM, BLOCK_D, IS_MASKED)
    if KIND == "":
        return k, v, 1.0, 1.0
    else:
        heads = scales + kv_head
        scale = tokens_of(heads, table, start, end, stride_scale_page, stride_scale_slot, BLOCK_SIZE, BLOCK_N)
        k_scale = tl.load(scale, mask=is_token, other=0.0)
        v_scale = tl.load(scale + NUM_KV_HEADS, mask=is_token, other=0.0)
        return decode(k, KIND, dtype), decode(v, KIND, dtype), k_scale, v_scale


@triton.jit
def rounded_to_bfloat16(x):
    """Float32 x, finite, to the nearest value of bfloat16, ties to even. Triton's interpreter cuts off instead."""
    bits = x.to(tl.uint32, bitcast=True)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).to(tl.float32, bitcast=True)


@triton.jit
def alibi(slope, position):
    """bfloat16(slope) * bfloat16(position) rounded to bfloat16, as transformers builds it; slope is rounded already."""
    return rounded_to_bfloat16(slope[:, None] * rounded_to_bfloat16(position.to(tl.float32))[None, :])


@triton.jit
def scores_of(
    q, k, k_scale, is_visible, slope, position, HAS_ALIBI: tl.constexpr, KIND: tl.constexpr, IS_MASKED: tl.constexpr
):
    """float32[M, BLOCK_N]: q.k + alibi, -inf where a row does not see a token."""
    s = tl.dot(q, tl.trans(k), input_precision="ieee")
    if KIND != "":
        s = s * k_scale[None, :]
    if HAS_ALIBI:
        s = s + alibi(slope, position)
    if IS_MASKED:
        s = tl.where(is_visible, s, float("-inf"))
    return s


@triton.jit
def add_tile(s, v, v_scale, acc, largest, total, SCALE: tl.constexpr, KIND: tl.constexpr):
    """Adds a tile's tokens, of scores s, to the running (acc [M, D], largest [M], total [M]) of an online softmax
    (arXiv:1805.02867).

    Every row sees at least one token of the first tile.
    """
    new_largest = tl.maximum(largest, tl.max(s, 1) * SCALE)
    # One fused multiply-add a score.
    p = tl.exp2(s * SCALE - new_largest[:, None])
    correction = tl.exp2(largest - new_largest)
    total = total * correction + tl.sum(p, 1)
    if KIND != "":
        p = p * v_scale[None, :]
    acc = tl.dot(p.to(v.dtype), v, acc * correction[:, None], input_precision="ieee")
    return acc, new_largest, total


@triton.jit
def attend_tile(
    q,
    k,
    v,
    k_scale,
    v_scale,
    acc,
    largest,
    total,
    is_visible,
    slope,
    position,
    SCALE: tl.constexpr,
    HAS_ALIBI: tl.constexpr,
    KIND: tl.constexpr,
    IS_MASKED: tl.constexpr,
):
    """`scores_of` and `add_tile`."""
    s = scores_of(q, k, k_scale, is_visible, slope, position, HAS_ALIBI, KIND, IS_MASKED)
    return add_tile(s, v, v_scale, acc, largest, total, SCALE, KIND)


def attention_arguments(
    q: Tensor, block_tables: Tensor, positions: Tensor, pages: Tensor, alibi_slopes: Tensor | None, out: Tensor
) -> tuple[Arguments, Constants]:
    """Arguments and constants that both kernels' launches have in common."""
    _, block_size, _, num_kv_heads, head_dim = pages.shape
    scales = scales_of(pages)
    arguments: Arguments = {
        "q": q,
        "pages": raw(pages),
        "scales": scales,
        "block_tables": block_tables,
        "positions": positions,
        "alibi_slopes": alibi_slopes,
        "out": out,
        "stride_q_token": q.stride(0),
        "stride_out_token": out.stride(0),
        "stride_table": block_tables.stride(0),
        "stride_page": pages.stride(0),
        "stride_slot": pages.stride(1),
        "stride_scale_page": 0 if scales is None else scales.stride(0),
        "stride_scale_slot": 0 if scales is None else scales.stride(1),
    }
    constants: Constants = {
        "GROUP": q.shape[1] // head_dim // num_kv_heads,
        "NUM_KV_HEADS": num_kv_heads,
        "HEAD_DIM": head_dim,
        "BLOCK_D": max(16, triton.next_power_of_2(head_dim)),
        "BLOCK_SIZE": block_size,
        "HAS_ALIBI": alibi_slopes is not None,
        "KIND": KINDS.get(pages.dtype, ""),
    }
    return arguments, constants


def softmax_scale(head_dim: int) -> float:
    """log2(e) / sqrt(D)"""
    return LOG2_E / math.sqrt(head_dim)
