"""A step of decodes from what lies on the device for every slot, into the fixed place from which a CUDA graph reads it.

The host sends slots and positions alone, 16 bytes a row; tokens, pages and block tables are read where they are.
"""

import triton
import triton.language as tl
from torch import Tensor

from peregrine_kernels.gpu.launch import Launch
from peregrine_kernels.kv_cache import GraphDecodeRows, PagedBatch

BLOCK = 128


@triton.jit
def decode_inputs_kernel(
    # pointers
    rows,
    token_ids,
    block_tables,
    to_token_ids,
    to_positions,
    to_slot_mapping,
    to_block_tables,
    # sizes
    num_decodes,
    # strides
    stride_rows,
    stride_tokens,
    stride_table,
    stride_to_table,
    # constants
    BLOCK_SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: one row of the step or, past its end, of padding: token 0 at position -1 without a slot."""
    row = tl.program_id(0).to(tl.int64)
    if row >= num_decodes:
        tl.store(to_token_ids + row, 0)
        tl.store(to_positions + row, -1)
        tl.store(to_slot_mapping + row, -1)
        return
    slot = tl.load(rows + row)
    position = tl.load(rows + stride_rows + row)
    table = block_tables + slot * stride_table
    num_blocks = position // BLOCK_SIZE + 1
    page = tl.load(table + num_blocks - 1)
    tl.store(to_token_ids + row, tl.load(token_ids + slot * stride_tokens + position))
    tl.store(to_positions + row, position)
    tl.store(to_slot_mapping + row, page * BLOCK_SIZE + position % BLOCK_SIZE)
    for start in range(0, num_blocks, BLOCK):
        block = start + tl.arange(0, BLOCK)
        is_block = block < num_blocks
        pages = tl.load(table + block, mask=is_block, other=0)
        tl.store(to_block_tables + row * stride_to_table + block, pages, mask=is_block)


def decode_inputs_launch(step: GraphDecodeRows, to_token_ids: Tensor, to: PagedBatch) -> Launch:
    """n decodes -> to_token_ids int64[N], to, N >= n, with tables as wide as the slots' or wider."""
    return Launch(
        decode_inputs_kernel,
        (len(to_token_ids),),
        {
            "rows": step.rows,
            "token_ids": step.token_ids,
            "block_tables": step.block_tables,
            "to_token_ids": to_token_ids,
            "to_positions": to.positions,
            "to_slot_mapping": to.slot_mapping,
            "to_block_tables": to.block_tables,
            "num_decodes": step.rows.shape[1],
            "stride_rows": step.rows.stride(0),
            "stride_tokens": step.token_ids.stride(0),
            "stride_table": step.block_tables.stride(0),
            "stride_to_table": to.block_tables.stride(0),
        },
        {"BLOCK_SIZE": step.block_size, "BLOCK": BLOCK},
        num_warps=1,
    )
