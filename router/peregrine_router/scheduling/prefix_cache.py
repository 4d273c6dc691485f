"""The prefix cache: full blocks by the hash of their tokens, so that no prompt prefix is computed twice.

A block's hash covers all tokens up to its end, and therefore stands for the K and V of any sequence that starts with
them: SHA-256 of the previous block's hash and of its own token ids as int32. The first block's parent is a hash of
adapter and tenant: no tenant finds another's prompts, or can infer them from its own response times.
"""

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256


def root_hash(salt: bytes, adapter: str = "") -> bytes:
    """The parent hash of a sequence's first block; 32 bytes. `salt`: the tenant's secret."""
    name = adapter.encode()
    return sha256(len(name).to_bytes(4, "little") + name + salt).digest()


def block_hash(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """The hash of a block with these tokens behind the block with hash `parent`; 32 bytes."""
    return sha256(parent + array("i", token_ids).tobytes()).digest()


class PrefixCache:
    """Cached blocks by hash. Those without an owner are idle: they are evicted in LRU order.

    While several tenants have idle blocks, none keeps more than `max_idle` of them.
    """

    def __init__(self, max_idle: int) -> None:
        self._max_idle = max_idle
        self._block_of: dict[bytes, int] = {}
        self._key_of: dict[int, tuple[bytes, bytes]] = {}
        """(hash, salt)."""
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._idle_of: dict[bytes, OrderedDict[int, None]] = {}
        """Idle blocks by salt, the least recently used first."""
        self.num_evictions = 0
        """Blocks evicted so far."""

    @property
    def num_idle(self) -> int:
        return len(self._idle)

    def __contains__(self, block: int) -> bool:
        return block in self._key_of

    def find(self, hash: bytes) -> int | None:
        """The cached block with that hash."""
        return self._block_of.get(hash)

    def add(self, block: int, hash: bytes, salt: bytes) -> None:
        """Caches an owned block that is full. No effect if a block with its tokens is cached already."""
        if hash not in self._block_of and block not in self._key_of:
            self._block_of[hash] = block
            self._key_of[block] = hash, salt

    def release_to_lru(self, block: int) -> list[int]:
        """Makes a cached block idle because its last owner is gone. Returns the blocks of its tenant evicted for it."""
        _, salt = self._key_of[block]
        idle = self._idle_of.setdefault(salt, OrderedDict())
        self._idle[block] = idle[block] = None
        return [self._evict_block(next(iter(idle)))] if len(idle) > self._max_idle and len(self._idle_of) > 1 else []

    def pin(self, block: int) -> None:
        """Takes an idle block out of the LRU order because it has an owner again."""
        _, salt = self._key_of[block]
        idle = self._idle_of[salt]
        del self._idle[block], idle[block]
        if not idle:
            del self._idle_of[salt]

    def evict(self) -> int:
        """Removes the least recently used idle block and returns it. StopIteration if there is none."""
        return self._evict_block(next(iter(self._idle)))

    def check_integrity(self, owned: set[int]) -> set[int]:
        """Raises AssertionError unless the idle blocks are those cached and not owned; returns them."""
        assert {block: key[0] for block, key in self._key_of.items()} == {b: h for h, b in self._block_of.items()}, (
            "a block and its hash disagree"
        )
        assert self._idle.keys() == self._key_of.keys() - owned, "a cached block is neither idle nor owned, or both"
        by_salt = {block: salt for salt, blocks in self._idle_of.items() for block in blocks}
        assert by_salt == {block: self._key_of[block][1] for block in self._idle}, "an idle block has another tenant"
        assert all(self._idle_of.values()), "a tenant without idle blocks is still counted"
        return set(self._idle)

    def _evict_block(self, block: int) -> int:
        self.num_evictions += 1
        self.pin(block)
        hash, _ = self._key_of.pop(block)
        del self._block_of[hash]
        return block
