"""The prefix cache: which prompts find blocks of others, which block is evicted first, and what a miss costs."""

import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_shards import FakeModel, submit
from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.prefix_cache import block_hash, root_hash
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.scheduling.sequence import Sequence

BLOCK_SIZE = 4
NUM_BLOCKS = 16


class Server:
    """A scheduler and the shard that it drives."""

    def __init__(self, num_blocks: int = NUM_BLOCKS, *, caches_prefixes: bool = True) -> None:
        self.pool = BlockPool(num_blocks, BLOCK_SIZE)
        self.model = FakeModel(num_blocks, BLOCK_SIZE)
        self.scheduler = Scheduler(
            self.pool,
            FairPolicy(8, lead=64),
            max_batch_size=8,
            max_step_tokens=64,
            eos_token_ids=frozenset(),
            caches_prefixes=caches_prefixes,
        )

    def serve(
        self, prompt: list[int], count: int = 1, salt: bytes = b"", adapter: str = "", **sampling: Any
    ) -> Sequence:
        """One request to its end."""
        request = Request("a", tuple(prompt), SamplingParams(**sampling), count, cache_salt=salt, adapter=adapter)
        sequence = submit(self.scheduler, request)
        while (step := self.scheduler.schedule()) is not None:
            self.scheduler.commit(self.model.execute(step))
            self.scheduler.check_integrity()
        return sequence


@pytest.mark.parametrize(("length", "cached"), [(3, 0), (4, 0), (5, 4), (12, 8), (13, 12)])
def test_whole_blocks_before_the_last_token_are_found(length: int, cached: int) -> None:
    """The same prompt again computes what does not fill a block, and its last token in any case."""
    server = Server()
    server.serve(list(range(length)))
    again = server.serve(list(range(length)))
    assert again.num_prefix_hit_tokens == server.scheduler.prefixes.num_cached_tokens == cached
    assert server.model.step_tokens == [length, length - cached]


def test_the_next_turn_of_a_chat_computes_only_what_is_new() -> None:
    """Its prompt is all that was said and generated before, and a new message."""
    server = Server()
    first = server.serve(list(range(10)), 10)
    second = server.serve([*first.token_ids, 1, 2, 3])
    assert second.num_prefix_hit_tokens == 16
    assert server.model.step_tokens[-1] == 20 + 3 - 16


def test_tenants_do_not_find_each_others_prompts() -> None:
    """A salt of its own means a cache of its own, however alike the prompts are."""
    server = Server()
    server.serve(list(range(9)), salt=b"a")
    assert server.serve(list(range(9)), salt=b"b").num_prefix_hit_tokens == 0
    assert server.serve(list(range(9)), salt=b"a").num_prefix_hit_tokens == 8


def test_adapters_do_not_find_each_others_prompts() -> None:
    """K and V depend on the adapter: one tenant's blocks of a prompt serve only requests of the same adapter."""
    server = Server()
    server.serve(list(range(9)), adapter="a")
    assert server.serve(list(range(9)), adapter="b").num_prefix_hit_tokens == 0
    assert server.serve(list(range(9))).num_prefix_hit_tokens == 0
    assert server.serve(list(range(9)), adapter="a").num_prefix_hit_tokens == 8


def test_a_prompt_to_be_scored_is_computed_whole() -> None:
    """Log-probabilities of a prompt's tokens come from computing them."""
    server = Server()
    server.serve(list(range(9)))
    assert server.serve(list(range(9)), prompt_logprobs=True).num_prefix_hit_tokens == 0


def test_switched_off_it_finds_nothing() -> None:
    """Without caching every prompt is computed whole, and no block is kept."""
    server = Server(caches_prefixes=False)
    server.serve(list(range(9)))
    assert server.serve(list(range(9))).num_prefix_hit_tokens == 0
    assert server.pool.num_idle == 0


def test_a_running_prompt_is_found_as_soon_as_it_was_sent() -> None:
    """A request that joins while another runs shares its blocks; they have two owners."""
    server = Server()
    for name, new in (("first", 8), ("second", 2)):
        submit(server.scheduler, Request(name, tuple(range(9)), SamplingParams(), new))
        step = server.scheduler.schedule()
        assert step is not None
        server.scheduler.commit(server.model.execute(step))
    first, second = server.scheduler.running
    assert first.blocks[:2] == second.blocks[:2]
    assert server.pool.is_shared(first.blocks[0])


def test_the_least_recently_used_prefix_goes_first() -> None:
    """When blocks run out, of three prompts the one that was not used again is computed anew."""
    server = Server(num_blocks=5)
    a, b, c = ([i] * 9 for i in range(3))
    server.serve(a)
    server.serve(b)
    server.serve(a)
    server.serve(c)
    assert server.serve(a).num_prefix_hit_tokens == 8
    assert server.serve(b).num_prefix_hit_tokens == 0


def test_the_beginning_of_a_prefix_outlives_its_end() -> None:
    """A prompt that shares only the beginning still finds it when the rest was evicted."""
    server = Server(num_blocks=8)
    server.serve([*range(16), 1])
    server.serve([7] * 22)
    assert server.serve([*range(16), 1]).num_prefix_hit_tokens == 8


def test_a_tenant_keeps_no_more_than_its_part_while_others_use_the_cache() -> None:
    """Alone it may fill the cache; beside another it gives up its oldest blocks beyond its part."""
    pool = BlockPool(8, BLOCK_SIZE, tenant_fraction=0.5)

    def keep(count: int, salt: bytes) -> None:
        blocks = pool.allocate(count)
        assert blocks is not None
        for at, block in enumerate(blocks):
            pool.cache_block(block, block_hash(root_hash(salt), [at, count]), salt)
        pool.free(blocks)
        pool.check_integrity([])

    keep(6, b"greedy")
    assert pool.num_idle == 6
    keep(2, b"modest")
    assert pool.num_idle == 8
    keep(3, b"greedy")
    assert [len(pool.acquire_cached([block_hash(root_hash(b"modest"), [at, 2])])) for at in range(2)] == [1, 1]
    assert pool.num_idle == 4


@given(st.lists(st.tuples(st.sampled_from(["new", "free", "reuse"]), st.integers(0, 5)), max_size=60))
def test_pool_keeps_account_of_cached_blocks(history: list[tuple[str, int]]) -> None:
    """Whatever is allocated, cached, freed and reused: a block is free, idle or owned, and never two of these."""
    pool, tables = BlockPool(8, BLOCK_SIZE, tenant_fraction=0.4), []
    for number, (action, count) in enumerate(history):
        salt = bytes([count % 2])
        if action == "new" and (blocks := pool.allocate(count)) is not None:
            for at, block in enumerate(blocks[:-1]):
                pool.cache_block(block, block_hash(root_hash(salt), [at, number % 4]), salt)
            tables.append(blocks)
        elif action == "free" and tables:
            pool.free(tables.pop(count % len(tables)))
        elif action == "reuse":
            tables.append(pool.acquire_cached(block_hash(root_hash(salt), [at, number % 4]) for at in range(count)))
        pool.check_integrity(tables)


def test_hashes_tell_tokens_salts_and_adapters_apart() -> None:
    """Every part of what K and V depend on, and of who may see them, changes the hash."""
    roots = [root_hash(b""), root_hash(b"a"), root_hash(b"", "a"), root_hash(b"b", "a"), root_hash(b"ab")]
    hashes = {block_hash(root, tokens) for root in roots for tokens in ([1, 2], [2, 1], [258, 0], [1, 2, 0])}
    assert len(hashes) == 20


def test_looking_costs_little_when_nothing_is_found() -> None:
    """512 new prompt tokens are hashed in half a per cent of 10 ms, less than any model takes to compute them."""
    tokens = list(range(512))
    times = []
    for _ in range(50):
        sequence = Sequence(Request("a", tuple(tokens), SamplingParams(), 1), tokens)
        start = time.perf_counter()
        BlockPool(8, 64).acquire_cached(sequence.hashes(64, 0, 8))
        assert len(list(sequence.hashes(64, 0, 8))) == 8
        times.append(time.perf_counter() - start)
    assert min(times) < 50e-6


def test_a_cache_that_is_full_takes_no_more_memory() -> None:
    """However many blocks pass through it: a server that runs for days takes what it took after the first hours."""
    pool, root = BlockPool(256, BLOCK_SIZE), root_hash(b"")

    def peak_of(numbers: range) -> int:
        """In bytes, of Python's allocations, while blocks with these tokens are computed and left."""
        tracemalloc.reset_peak()
        for number in numbers:
            blocks = pool.allocate(1)
            assert blocks is not None
            pool.cache_block(blocks[0], block_hash(root, [number]), b"")
            pool.free(blocks)
        return tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        peaks = [peak_of(range(start, start + 5000)) for start in (0, 5000, 10000)]
    finally:
        tracemalloc.stop()
    assert pool.num_idle == 256
    # One byte kept for each of 5,000 blocks would be more.
    assert max(peaks[1:]) < peaks[0] + 1000
