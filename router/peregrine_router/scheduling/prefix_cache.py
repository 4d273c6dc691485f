"""Which full blocks hold which tokens, so that a prompt that begins like another is not computed again.

A block's hash covers all tokens up to its end, whose K and V it therefore shares with any sequence that begins with
them: SHA-256 of the hash before it and its own token ids, as int32. The first links to adapter and tenant: no tenant
finds, or can by its own response times guess, what another's prompts were.
"""

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256


def root_hash(salt: bytes, adapter: str = "") -> bytes:
    """What the first block of a sequence links to; 32 bytes."""
    name = adapter.encode()
    return sha256(len(name).to_bytes(4, "little") + name + salt).digest()


def block_hash(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """Of a block with these tokens behind the one whose hash is `parent`; 32 bytes."""
    return sha256(parent + array("i", token_ids).tobytes()).digest()


class PrefixCache:
    """Blocks by hash. Those that nobody owns are idle: kept, the least recently used first to go.

    While several tenants have idle blocks, none keeps more than `max_idle` of them.
    """

    def __init__(self, max_idle: int) -> None:
        self._max_idle = max_idle
        self._block_of: dict[bytes, int] = {}
        self._key_of: dict[int, tuple[bytes, bytes]] = {}
        """(hash, salt)."""
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._idle_of: dict[bytes, OrderedDict[int, None]] = {}
        """By salt."""

    @property
    def num_idle(self) -> int:
        return len(self._idle)

    def __contains__(self, block: int) -> bool:
        return block in self._key_of

    def find(self, hash: bytes) -> int | None:
        """The block of that hash."""
        return self._block_of.get(hash)

    def add(self, block: int, hash: bytes, salt: bytes) -> None:
        """An owned block is full. No effect if another has its tokens already."""
        if hash not in self._block_of and block not in self._key_of:
            self._block_of[hash] = block
            self._key_of[block] = hash, salt

    def release_to_lru(self, block: int) -> list[int]:
        """A cached block lost its last owner; the blocks of its tenant that are given up for it."""
        _, salt = self._key_of[block]
        idle = self._idle_of.setdefault(salt, OrderedDict())
        self._idle[block] = idle[block] = None
        return [self._evict_block(next(iter(idle)))] if len(idle) > self._max_idle and len(self._idle_of) > 1 else []

    def pin(self, block: int) -> None:
        """An idle block has an owner again."""
        _, salt = self._key_of[block]
        idle = self._idle_of[salt]
        del self._idle[block], idle[block]
        if not idle:
            del self._idle_of[salt]

    def evict(self) -> int:
        """Forgets the idle block that was used least recently. KeyError or StopIteration if there is none."""
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
        self.pin(block)
        hash, _ = self._key_of.pop(block)
        del self._block_of[hash]
        return block
