"""The KV block pool: which pages of the shards' cache belong to which sequence. Ids only; no tensors."""

from collections.abc import Iterable


class BlockPool:
    """`num_blocks` pages of `block_size` tokens. A block is free or has exactly one owner."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        # Popped from the end: a fresh pool hands out ascending ids, so that a prompt's blocks are neighbours in memory.
        self._free = list(range(num_blocks - 1, -1, -1))
        self._is_free = [True] * num_blocks

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - len(self._free)

    def num_blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold `num_tokens` tokens."""
        return -(-num_tokens // self.block_size)

    def allocate(self, count: int) -> list[int] | None:
        """`count` blocks, or None (and nothing taken) if there are not as many."""
        if count > len(self._free):
            return None
        blocks = [self._free.pop() for _ in range(count)]
        for block in blocks:
            self._is_free[block] = False
        return blocks

    def free(self, blocks: list[int]) -> None:
        """Returns blocks to the pool. Raises ValueError for one that is free already: that would give it two owners."""
        for block in reversed(blocks):
            if self._is_free[block]:
                raise ValueError(f"block {block} freed twice")
            self._is_free[block] = True
            self._free.append(block)

    def check_integrity(self, tables: Iterable[list[int]]) -> None:
        """Raises AssertionError unless every block is either free or in exactly one of `tables`."""
        owned = [block for table in tables for block in table]
        assert len(set(owned)) == len(owned), "a block has two owners"
        assert len(set(self._free)) == len(self._free), "a block is free twice"
        assert not set(owned) & set(self._free), "a block is free and owned"
        assert len(owned) + len(self._free) == self.num_blocks, "a block is lost"
        assert all(self._is_free[block] for block in self._free), "the free flags disagree with the free list"
