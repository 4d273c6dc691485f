"""The KV block pool: which pages of the shards' cache belong to which sequences. Ids only; no tensors."""

from collections import Counter
from collections.abc import Iterable


class BlockPool:
    """`num_blocks` pages of `block_size` tokens. A block is free or has one owner or, shared by forks, several."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        # Popped from the end: a fresh pool hands out ascending ids, so that a prompt's blocks are neighbours in memory.
        self._free = list(range(num_blocks - 1, -1, -1))
        self._num_owners = [0] * num_blocks

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
        """`count` blocks of one owner, or None (and nothing taken) if there are not as many."""
        if count > len(self._free):
            return None
        blocks = [self._free.pop() for _ in range(count)]
        for block in blocks:
            self._num_owners[block] = 1
        return blocks

    def share(self, blocks: list[int]) -> None:
        """Each block gains an owner. Raises ValueError for a free one."""
        for block in blocks:
            if self._num_owners[block] == 0:
                raise ValueError(f"block {block} is free: nobody's tokens are in it")
            self._num_owners[block] += 1

    def is_shared(self, block: int) -> bool:
        """Whether writing to the block would change another owner's tokens."""
        return self._num_owners[block] > 1

    def free(self, blocks: list[int]) -> None:
        """Each block loses an owner, the last of whom returns it to the pool. Raises ValueError for a free one: given
        out twice, it would mix two sequences."""
        for block in reversed(blocks):
            if self._num_owners[block] == 0:
                raise ValueError(f"block {block} freed twice")
            self._num_owners[block] -= 1
            if self._num_owners[block] == 0:
                self._free.append(block)

    def check_integrity(self, tables: Iterable[list[int]]) -> None:
        """Raises AssertionError unless every block has as many owners as `tables` name it, and is free if none does."""
        owners: Counter[int] = Counter()
        for table in tables:
            assert len(set(table)) == len(table), "a sequence has a block twice"
            owners.update(table)
        assert [owners[block] for block in range(self.num_blocks)] == self._num_owners, (
            "a block's owners are miscounted"
        )
        assert len(set(self._free)) == len(self._free), "a block is free twice"
        assert not owners.keys() & set(self._free), "a block is free and owned"
        assert len(owners) + len(self._free) == self.num_blocks, "a block is lost"
