"""A step of decodes into the fixed place from which a CUDA graph reads it, padding and all, in one launch."""

import triton
import triton.language as tl
from torch import Tensor

from peregrine_kernels.launch import Launch
from peregrine_kernels.paged import PagedBatch

BLOCK = 128


@triton.jit
def decode_inputs_kernel(
    # pointers
    token_ids,
    positions,
    slot_mapping,
    block_tables,
    to_token_ids,
    to_positions,
    to_slot_mapping,
    to_block_tables,
    # sizes
    num_decodes,
    num_blocks,
    # strides
    stride_table,
    stride_to_table,
    # constants
    BLOCK: tl.constexpr,
):
    """One program: one row, from the batch or, past its end, of padding: token 0 at position -1 without a slot."""
    row = tl.program_id(0).to(tl.int64)
    is_real = row < num_decodes
    tl.store(to_token_ids + row, tl.load(token_ids + row, mask=is_real, other=0))
    tl.store(to_positions + row, tl.load(positions + row, mask=is_real, other=-1))
    tl.store(to_slot_mapping + row, tl.load(slot_mapping + row, mask=is_real, other=-1))
    for start in range(0, num_blocks, BLOCK):
        block = start + tl.arange(0, BLOCK)
        is_block = (block < num_blocks) & is_real
        table = tl.load(block_tables + row * stride_table + block, mask=is_block, other=0)
        tl.store(to_block_tables + row * stride_to_table + block, table, mask=is_block)


def decode_inputs_launch(token_ids: Tensor, batch: PagedBatch, to_token_ids: Tensor, to: PagedBatch) -> Launch:
    """token_ids int64[n] and batch of n decodes -> to_token_ids int64[N], to, N >= n, with tables as wide or wider."""
    return Launch(
        decode_inputs_kernel,
        (len(to_token_ids),),
        {
            "token_ids": token_ids,
            "positions": batch.positions,
            "slot_mapping": batch.slot_mapping,
            "block_tables": batch.block_tables,
            "to_token_ids": to_token_ids,
            "to_positions": to.positions,
            "to_slot_mapping": to.slot_mapping,
            "to_block_tables": to.block_tables,
            "num_decodes": len(token_ids),
            "num_blocks": batch.block_tables.shape[1],
            "stride_table": batch.block_tables.stride(0),
            "stride_to_table": to.block_tables.stride(0),
        },
        {"BLOCK": BLOCK},
        num_warps=1,
    )
