"""The pool of KV blocks: which blocks of the shards' cache belong to which sequences. Ids only, no tensors."""

from collections import Counter
from collections.abc import Iterable

from peregrine_router.scheduling.prefix_cache import PrefixCache


class BlockPool:
    """`num_blocks` blocks of `block_size` tokens. A block is free, or has one owner or several.

    Full blocks of known tokens can be found by their hash (`cache_block`, `acquire_cached`), even without an owner:
    they then count as free, and keep their tokens until no other block is left to allocate.
    """

    def __init__(self, num_blocks: int, block_size: int, *, tenant_fraction: float = 1.0) -> None:
        """`tenant_fraction`: the part of the blocks that one tenant may keep idle in the cache while others use it."""
        self.num_blocks = num_blocks
        self.block_size = block_size
        # Popped from the end: a fresh pool hands out ascending ids, so that a prompt's blocks are neighbours in memory.
        self._free = list(range(num_blocks - 1, -1, -1))
        self._num_owners = [0] * num_blocks
        self._cache = PrefixCache(int(tenant_fraction * num_blocks))

    @property
    def num_free(self) -> int:
        return len(self._free) + self._cache.num_idle

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_free

    @property
    def num_idle(self) -> int:
        """Free blocks that a prompt may find in the prefix cache."""
        return self._cache.num_idle

    @property
    def num_evictions(self) -> int:
        """Cached blocks that gave way to others so far."""
        return self._cache.num_evictions

    def num_blocks_for(self, num_tokens: int) -> int:
        """Number of blocks that hold `num_tokens` tokens."""
        return -(-num_tokens // self.block_size)

    def allocate(self, count: int) -> list[int] | None:
        """`count` free blocks, which get one owner; None, and none is taken, if there are fewer."""
        if count == 0:
            return []  # A growing sequence that has room.
        if count > self.num_free:
            return None
        blocks = [self._free.pop() if self._free else self._cache.evict() for _ in range(count)]
        for block in blocks:
            self._num_owners[block] = 1
        return blocks

    def share(self, blocks: list[int]) -> None:
        """Adds an owner to each block. Raises ValueError for a free one."""
        for block in blocks:
            if self._num_owners[block] == 0:
                raise ValueError(f"block {block} is free: it holds nobody's tokens")
            self._num_owners[block] += 1

    def is_shared(self, block: int) -> bool:
        """Whether writing to the block would change another owner's tokens."""
        return self._num_owners[block] > 1

    def cache_block(self, block: int, hash: bytes, salt: bytes) -> None:
        """Caches an owned block that is full and will not be written to again: it can be found by its hash."""
        self._cache.add(block, hash, salt)

    def is_cached(self, hash: bytes) -> bool:
        """Whether `acquire_cached` would find a block."""
        return self._cache.find(hash) is not None

    def acquire_cached(self, hashes: Iterable[bytes]) -> list[int]:
        """The cached blocks of `hashes` up to the first that is not cached; each gains an owner."""
        blocks: list[int] = []
        for hash in hashes:
            if (block := self._cache.find(hash)) is None:
                break
            if self._num_owners[block] == 0:
                self._cache.pin(block)
            self._num_owners[block] += 1
            blocks.append(block)
        return blocks

    def free(self, blocks: list[int]) -> None:
        """Removes an owner from each block; without owners it is free. Raises ValueError for a block that is free
        already: allocated twice, it would mix two sequences."""
        # From the end, so that the start of a cached sequence, which others may share, is evicted last.
        for block in reversed(blocks):
            if self._num_owners[block] == 0:
                raise ValueError(f"block {block} freed twice")
            self._num_owners[block] -= 1
            if self._num_owners[block] == 0:
                self._free += self._cache.release_to_lru(block) if block in self._cache else [block]

    def check_integrity(self, tables: Iterable[list[int]]) -> None:
        """Raises AssertionError unless every block has as many owners as `tables` name it, and is free if none does."""
        owners: Counter[int] = Counter()
        for table in tables:
            assert len(set(table)) == len(table), "a sequence has a block twice"
            owners.update(table)
        assert [owners[block] for block in range(self.num_blocks)] == self._num_owners, (
            "a block's owners are miscounted"
        )
        idle, free = self._cache.check_integrity(set(owners)), set(self._free)
        assert len(free) == len(self._free), "a block is free twice"
        assert not free & (owners.keys() | idle), "a block is free and owned, or free and cached"
        assert len(owners) + len(free) + len(idle) == self.num_blocks, "a block is lost"
