"""The pool of KV blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peregrine_router.scheduling.block_pool import BlockPool
from schedulers import BLOCK_SIZE


@given(st.lists(st.tuples(st.sampled_from(["allocate", "share", "free"]), st.integers(0, 5)), max_size=60))
def test_block_pool_keeps_account_of_every_block(history: list[tuple[str, int]]) -> None:
    """Whatever is allocated, shared and freed, each block is free or has as many owners as tables that name it."""
    pool = BlockPool(16, BLOCK_SIZE)
    tables: list[list[int]] = []
    for action, count in history:
        if action == "allocate":
            blocks = pool.allocate(count)
            assert (blocks is None) == (count > 16 - len({block for table in tables for block in table}))
            tables += [] if blocks is None else [blocks]
        elif tables and action == "share":
            pool.share(tables[count % len(tables)])
            tables.append(list(tables[count % len(tables)]))
        elif tables:
            pool.free(tables.pop(count % len(tables)))
        pool.check_integrity(tables)


def test_block_pool_refuses_a_second_free() -> None:
    """Freeing a block twice is an error at once, not two owners later."""
    pool = BlockPool(4, BLOCK_SIZE)
    blocks = pool.allocate(2)
    assert blocks is not None
    pool.free(blocks)
    with pytest.raises(ValueError, match="freed twice"):
        pool.free(blocks[:1])


def test_block_pool_refuses_to_share_a_free_block() -> None:
    """A block that nobody owns has no tokens to share."""
    with pytest.raises(ValueError, match="is free"):
        BlockPool(4, BLOCK_SIZE).share([0])
