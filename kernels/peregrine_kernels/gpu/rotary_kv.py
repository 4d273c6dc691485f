"""Rotary positions and the write to the KV cache in one pass over the rows of the fused QKV projection.

q, k = x * cos + (-second half, first half) * sin        of every head of D elements
pages[slot] = k, v                                        rounded to the cache's type
"""

import triton
import triton.language as tl
from torch import Tensor

from peregrine_kernels.gpu.kv_quant import KINDS, encode, raw
from peregrine_kernels.gpu.launch import Launch
from peregrine_kernels.interface import Rotary
from peregrine_kernels.kv_cache import LARGEST, PagedBatch, scales_of

HEADS = 16
"""Heads of one program: 5 programs a token for Falcon-7B, so that even a lone decode is spread over processors."""


@triton.jit
def rotated(x, y, cos, sin, dtype: tl.constexpr):
    """x * cos + y * sin; products and sum are rounded to `dtype`, as transformers' are."""
    return ((x * cos).to(dtype).to(tl.float32) + (y * sin).to(dtype).to(tl.float32)).to(dtype).to(tl.float32)


@triton.jit
def rotary_kv_kernel(
    # pointers
    qkv,
    cos,
    sin,
    slot_mapping,
    pages,
    scales,
    # strides
    stride_qkv_token,
    stride_page,
    stride_slot,
    stride_scale_page,
    stride_scale_slot,
    # constants
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    HEADS: tl.constexpr,
    HAS_ROTARY: tl.constexpr,
    KIND: tl.constexpr,
    LARGEST: tl.constexpr,
):
    """One program: HEADS heads of one token. HALF >= HEAD_DIM / 2 is a power of two."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    lane = tl.arange(0, HALF)
    half: tl.constexpr = HEAD_DIM // 2
    is_lane = lane < half
    is_head = head < NUM_HEADS + 2 * NUM_KV_HEADS
    dtype: tl.constexpr = qkv.dtype.element_ty

    source = qkv + token * stride_qkv_token + head[:, None] * HEAD_DIM + lane[None, :]
    is_element = is_head[:, None] & is_lane[None, :]
    first = tl.load(source, mask=is_element, other=0.0).to(tl.float32)
    second = tl.load(source + half, mask=is_element, other=0.0).to(tl.float32)
    if HAS_ROTARY:
        at = token * HEAD_DIM + lane
        cos_1 = tl.load(cos + at, mask=is_lane, other=0.0).to(tl.float32)[None, :]
        cos_2 = tl.load(cos + at + half, mask=is_lane, other=0.0).to(tl.float32)[None, :]
        sin_1 = tl.load(sin + at, mask=is_lane, other=0.0).to(tl.float32)[None, :]
        sin_2 = tl.load(sin + at + half, mask=is_lane, other=0.0).to(tl.float32)[None, :]
        has_position = (head < NUM_HEADS + NUM_KV_HEADS)[:, None]
        first, second = (
            tl.where(has_position, rotated(first, -second, cos_1, sin_1, dtype), first),
            tl.where(has_position, rotated(second, first, cos_2, sin_2, dtype), second),
        )
        is_query = is_element & (head < NUM_HEADS)[:, None]
        tl.store(source, first.to(dtype), mask=is_query)
        tl.store(source + half, second.to(dtype), mask=is_query)

    slot = tl.load(slot_mapping + token).to(tl.int64)
    page, place = slot // BLOCK_SIZE, slot % BLOCK_SIZE
    # Padding of a batch has no slot. K heads, then V heads, are in the order of the page.
    kv_head = head - NUM_HEADS
    is_kept = is_head & (kv_head >= 0) & (slot >= 0)
    target = pages + page * stride_page + place * stride_slot + kv_head[:, None] * HEAD_DIM + lane[None, :]
    if KIND != "":
        largest = tl.max(tl.maximum(tl.abs(first), tl.abs(second)), 1)
        scale = tl.where(largest > 0, largest, 1.0) / LARGEST
        tl.store(scales + page * stride_scale_page + place * stride_scale_slot + kv_head, scale, mask=is_kept)
        first, second = encode(first / scale[:, None], KIND), encode(second / scale[:, None], KIND)
    is_stored = is_element & is_kept[:, None]
    tl.store(target, first.to(pages.dtype.element_ty), mask=is_stored)
    tl.store(target + half, second.to(pages.dtype.element_ty), mask=is_stored)


def rotary_kv_launch(qkv: Tensor, rotary: Rotary | None, batch: PagedBatch, pages: Tensor, num_heads: int) -> Launch:
    """As `Backend.rotary_kv_write`. A token whose slot is negative is rotated and not written."""
    _, block_size, _, num_kv_heads, head_dim = pages.shape
    scales = scales_of(pages)
    cos, sin = rotary if rotary is not None else (None, None)
    return Launch(
        rotary_kv_kernel,
        (len(qkv), triton.cdiv(num_heads + 2 * num_kv_heads, HEADS)),
        {
            "qkv": qkv,
            "cos": cos,
            "sin": sin,
            "slot_mapping": batch.slot_mapping,
            "pages": raw(pages),
            "scales": scales,
            "stride_qkv_token": qkv.stride(0),
            "stride_page": pages.stride(0),
            "stride_slot": pages.stride(1),
            "stride_scale_page": 0 if scales is None else scales.stride(0),
            "stride_scale_slot": 0 if scales is None else scales.stride(1),
        },
        {
            "NUM_HEADS": num_heads,
            "NUM_KV_HEADS": num_kv_heads,
            "HEAD_DIM": head_dim,
            "HALF": triton.next_power_of_2(head_dim // 2),
            "BLOCK_SIZE": block_size,
            "HEADS": HEADS,
            "HAS_ROTARY": rotary is not None,
            "KIND": KINDS.get(pages.dtype, ""),
            "LARGEST": int(LARGEST.get(pages.dtype, 1)),
        },
        num_warps=1 if head_dim <= 64 else 2,
        # sm_90 multiplies and adds bfloat16 itself: products then reach their sum unrounded, a last place off.
        is_contracted=False,
    )
