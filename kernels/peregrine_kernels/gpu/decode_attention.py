"""Attention of decodes: one token of each sequence over its pages.

A program takes SPLIT tokens of one sequence and all GROUP query heads of one KV head, so that K and V are read once.
The split is by size, not by count: how a sequence is split depends on its own length and not on who else is in the
batch, so neither does its result. Splits leave a partial result each, which a second kernel merges in their order:

    out = sum_i 2 ** lse_i partial_i / sum_i 2 ** lse_i        lse_i = log2 of split i's sum of 2 ** s

Lengths come from `positions`, on the device; the host fixes only the largest number of splits. So a launch recorded in
a CUDA graph serves any lengths.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from peregrine_kernels.gpu.attention_tile import add_tile, attention_arguments, load_tile, scores_of, softmax_scale
from peregrine_kernels.gpu.launch import Launch, capability_of

SPLIT_TOKENS = 512
"""Tokens of one program: 4 programs a KV head at 2048 tokens, and a merge of a hundredth of what they read."""
MERGE_HEADS = 8


@triton.jit
def load_queries(q, first, NUM: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """[NUM, BLOCK_D]: heads `first`... of a group whose first is at q; zeros past the group and past HEAD_DIM."""
    head, lane = first + tl.arange(0, NUM), tl.arange(0, BLOCK_D)
    is_element = (head < GROUP)[:, None] & (lane < HEAD_DIM)[None, :]
    return tl.load(q + head[:, None] * HEAD_DIM + lane[None, :], mask=is_element, other=0.0)


@triton.jit
def load_slopes(slopes, first, NUM: tl.constexpr, GROUP: tl.constexpr, HAS_ALIBI: tl.constexpr):
    """float32[NUM], or nothing that is used."""
    head = first + tl.arange(0, NUM)
    if HAS_ALIBI:
        return tl.load(slopes + head, mask=head < GROUP, other=0.0)
    else:
        return 0.0


@triton.jit
def store_heads(
    acc, largest, total, first, out, partials, lses, is_whole,
    NUM: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The result of a sequence of one split to `out`, that of a split among others to `partials` and `lses`."""
    head, lane = first + tl.arange(0, NUM), tl.arange(0, BLOCK_D)
    is_element = (head < GROUP)[:, None] & (lane < HEAD_DIM)[None, :]
    offset = head[:, None] * HEAD_DIM + lane[None, :]
    # The largest of the weights is 1, so that only padding has a total below it.
    result = acc / tl.maximum(total, 1.0)[:, None]
    if is_whole:
        tl.store(out + offset, result.to(out.dtype.element_ty), mask=is_element)
    else:
        tl.store(partials + offset, result, mask=is_element)
        tl.store(lses + head, largest + tl.log2(total), mask=head < GROUP)


@triton.jit
def decode_attention_kernel(
    # pointers
    q,
    pages,
    scales,
    block_tables,
    positions,
    alibi_slopes,
    out,
    partials,
    lses,
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
    BLOCK_N: tl.constexpr,
    SPLIT: tl.constexpr,
    HEADS: tl.constexpr,
    MORE_HEADS: tl.constexpr,
    SCALE: tl.constexpr,
    HAS_ALIBI: tl.constexpr,
    KIND: tl.constexpr,
):
    """HEADS + MORE_HEADS >= GROUP: the group in one tile, or in two that share each loaded tile of K and V."""
    sequence = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    num_splits = tl.num_programs(2)
    length = (tl.load(positions + sequence) + 1).to(tl.int32)
    begin = split * SPLIT
    # The first split of padding, which has no tokens, goes on to write its zeros.
    if begin >= tl.maximum(length, 1):
        return
    end = tl.minimum(begin + SPLIT, length)
    table = block_tables + sequence * stride_table
    lane = tl.arange(0, BLOCK_N)
    dtype: tl.constexpr = q.dtype.element_ty

    heads = q + sequence * stride_q_token + kv_head * GROUP * HEAD_DIM
    slopes = alibi_slopes + kv_head * GROUP if HAS_ALIBI else alibi_slopes
    q_1 = load_queries(heads, 0, HEADS, GROUP, HEAD_DIM, BLOCK_D)
    slope_1 = load_slopes(slopes, 0, HEADS, GROUP, HAS_ALIBI)
    acc_1 = tl.zeros([HEADS, BLOCK_D], tl.float32)
    largest_1 = tl.full([HEADS], float("-inf"), tl.float32)
    total_1 = tl.zeros([HEADS], tl.float32)
    if MORE_HEADS:
        q_2 = load_queries(heads, HEADS, MORE_HEADS, GROUP, HEAD_DIM, BLOCK_D)
        slope_2 = load_slopes(slopes, HEADS, MORE_HEADS, GROUP, HAS_ALIBI)
        acc_2 = tl.zeros([MORE_HEADS, BLOCK_D], tl.float32)
        largest_2 = tl.full([MORE_HEADS], float("-inf"), tl.float32)
        total_2 = tl.zeros([MORE_HEADS], tl.float32)

    # One loop with a mask, where only the last tile needs it: a copy of the body without one took 255 registers for 71
    # heads on sm_80 (4 warps, Triton 3.7.1), and the mask is a fraction of the exponentials.
    for start in range(begin, end, BLOCK_N):
        k, v, k_scale, v_scale = load_tile(
            pages, scales, table, kv_head, start, end, stride_page, stride_slot, stride_scale_page, stride_scale_slot,
            dtype, NUM_KV_HEADS, HEAD_DIM, BLOCK_D, BLOCK_SIZE, BLOCK_N, KIND, True,
        )  # fmt: skip
        position = start + lane
        is_visible = (position < end)[None, :]
        # Both products of K before either's softmax: 264 us instead of 280 for 256 sequences of 8,192 tokens (H200).
        s_1 = scores_of(q_1, k, k_scale, is_visible, slope_1, position, HAS_ALIBI, KIND, True)
        if MORE_HEADS:
            s_2 = scores_of(q_2, k, k_scale, is_visible, slope_2, position, HAS_ALIBI, KIND, True)
        acc_1, largest_1, total_1 = add_tile(s_1, v, v_scale, acc_1, largest_1, total_1, SCALE, KIND)
        if MORE_HEADS:
            acc_2, largest_2, total_2 = add_tile(s_2, v, v_scale, acc_2, largest_2, total_2, SCALE, KIND)

    out_heads = out + sequence * stride_out_token + kv_head * GROUP * HEAD_DIM
    first_head = ((sequence * num_splits + split) * NUM_KV_HEADS + kv_head) * GROUP
    store_heads(
        acc_1, largest_1, total_1, 0, out_heads, partials + first_head * HEAD_DIM, lses + first_head, length <= SPLIT,
        HEADS, GROUP, HEAD_DIM, BLOCK_D,
    )  # fmt: skip
    if MORE_HEADS:
        store_heads(
            acc_2, largest_2, total_2, HEADS, out_heads, partials + first_head * HEAD_DIM, lses + first_head,
            length <= SPLIT, MORE_HEADS, GROUP, HEAD_DIM, BLOCK_D,
        )  # fmt: skip


@triton.jit
def merge_splits_kernel(
    # pointers
    partials,
    lses,
    positions,
    out,
    # sizes
    num_splits,
    # strides
    stride_out_token,
    # constants
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SPLIT: tl.constexpr,
    HEADS: tl.constexpr,
):
    """One program: HEADS heads of one sequence. Sequences of one split are done already."""
    sequence = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    lane = tl.arange(0, BLOCK_D)
    length = (tl.load(positions + sequence) + 1).to(tl.int32)
    if length <= SPLIT:
        return
    is_head = head < NUM_HEADS
    is_element = is_head[:, None] & (lane < HEAD_DIM)[None, :]
    acc = tl.zeros([HEADS, BLOCK_D], tl.float32)
    largest = tl.full([HEADS], float("-inf"), tl.float32)
    total = tl.zeros([HEADS], tl.float32)
    for split in range(0, tl.cdiv(length, SPLIT)):
        row = (sequence * num_splits + split) * NUM_HEADS + head
        lse = tl.load(lses + row, mask=is_head, other=0.0)
        partial = tl.load(partials + row[:, None] * HEAD_DIM + lane[None, :], mask=is_element, other=0.0)
        new_largest = tl.maximum(largest, lse)
        correction, weight = tl.exp2(largest - new_largest), tl.exp2(lse - new_largest)
        acc = acc * correction[:, None] + partial * weight[:, None]
        total = total * correction + weight
        largest = new_largest
    offset = sequence * stride_out_token + head[:, None] * HEAD_DIM + lane[None, :]
    tl.store(out + offset, (acc / total[:, None]).to(out.dtype.element_ty), mask=is_element)


@dataclass(frozen=True, slots=True)
class Splits:
    """Room for the partial results of a step's decodes, used by one layer after the other."""

    size: int
    """Tokens of a split"""
    partials: Tensor
    """float32[decodes, splits, Hq, D]"""
    lses: Tensor
    """float32[decodes, splits, Hq]"""

    @staticmethod
    def of(num_decodes: int, longest: int, num_heads: int, head_dim: int, size: int, device: torch.device) -> "Splits":
        """For contexts of up to `longest` tokens."""
        partials = torch.empty(num_decodes, -(-longest // size), num_heads, head_dim, device=device)
        return Splits(size, partials, torch.empty(partials.shape[:3], device=device))

    @property
    def count(self) -> int:
        return self.partials.shape[1]


def head_tiles(group: int) -> tuple[int, int]:
    """Rows of the one or two tiles that hold a group's heads. Tensor cores take 16 at least.

    Falcon-7B's 71 heads in 64 + 16 rows cost 37 % fewer tensor-core operations, and fewer registers, than in 128
    (sm_80, compiled by Triton 3.7.1: 80 and 128 HMMA a tile).
    """
    whole: int = max(16, triton.next_power_of_2(group))
    if group <= 64 or group > whole - whole // 4:
        return whole, 0
    return whole // 2, max(16, triton.next_power_of_2(group - whole // 2))


def decode_attention_launch(
    q: Tensor,
    block_tables: Tensor,
    positions: Tensor,
    pages: Tensor,
    alibi_slopes: Tensor | None,
    out: Tensor,
    splits: Splits,
    capability: int | None = None,
) -> Launch:
    """q, out [B, Hq * D] with row strides, block_tables [B, blocks], positions [B]; slopes of bfloat16's values.

    For the pages' device, if not for another `capability`.

    A sequence at position -1 is padding: its row of `out` becomes zero.
    """
    arguments, constants = attention_arguments(q, block_tables, positions, pages, alibi_slopes, out)
    group, head_dim = int(constants["GROUP"]), pages.shape[-1]
    heads, more_heads = head_tiles(group)
    tile = min(32 if head_dim > 128 else 64, splits.size)
    # Two tiles of heads take 172 registers on sm_90, which leave two programs to a processor; 168 leave three. With
    # another tile in flight, 256 sequences of 8,192 tokens take 232 us instead of 265 (H200). Others would spill.
    is_capped = more_heads > 0 and pages.dtype.itemsize == 2 and (capability or capability_of(q.device)) >= 90
    return Launch(
        decode_attention_kernel,
        (len(q), pages.shape[3], splits.count),
        {**arguments, "partials": splits.partials, "lses": splits.lses},
        {
            **constants,
            "BLOCK_N": tile,
            "SPLIT": splits.size,
            "HEADS": heads,
            "MORE_HEADS": more_heads,
            "SCALE": softmax_scale(head_dim),
        },
        num_warps=4,
        # Two tiles in flight besides the one computed, or three: an indirect load takes two stages for each.
        num_stages=7 if is_capped else 5,
        max_registers=168 if is_capped else None,
    )


def merge_splits_launch(positions: Tensor, out: Tensor, splits: Splits) -> Launch:
    """positions [B], out [B, Hq * D]: merges what a launch of the above left in `splits`."""
    num_decodes, num_splits, num_heads, head_dim = splits.partials.shape
    return Launch(
        merge_splits_kernel,
        (num_decodes, triton.cdiv(num_heads, MERGE_HEADS)),
        {
            "partials": splits.partials,
            "lses": splits.lses,
            "positions": positions,
            "out": out,
            "num_splits": num_splits,
            "stride_out_token": out.stride(0),
        },
        {
            "NUM_HEADS": num_heads,
            "HEAD_DIM": head_dim,
            "BLOCK_D": triton.next_power_of_2(head_dim),
            "SPLIT": splits.size,
            "HEADS": MERGE_HEADS,
        },
        num_warps=4,
    )
