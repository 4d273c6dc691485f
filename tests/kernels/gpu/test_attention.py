"""Rotary, KV write and attention of the Triton backend, under Triton's interpreter, against the reference."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paged_cases import Case, Sequences, make_case
from peregrine_kernels import KVCache, PagedBatch
from peregrine_kernels.gpu.backend import TritonBackend
from peregrine_kernels.gpu.decode_attention import head_tiles
from peregrine_kernels.kv_cache import scales_of
from peregrine_kernels.reference.backend import ReferenceBackend

REFERENCE = ReferenceBackend()

HEADS = [(71, 1, 64), (7, 1, 32), (3, 1, 256), (8, 2, 128), (6, 3, 80), (4, 4, 64), (1, 1, 8)]
"""Query heads, KV heads, head dim: multi-query (Falcon-7B's prime 71 first), grouped, multi-head."""

BOUNDS = {torch.float32: 1e-5, torch.float16: 2e-3}
"""Half a unit in the last place of results below 4 is 1e-3 in float16."""

BACKEND = TritonBackend(split_tokens=32)
"""Splits are small, so that small contexts have several."""

lengths = st.integers(1, 90).flatmap(lambda context: st.tuples(st.integers(1, min(context, 20)), st.just(context)))
batches = st.lists(st.one_of(lengths, lengths.map(lambda x: (1, x[1]))), min_size=1, max_size=5)
dtypes = st.sampled_from([torch.float32, torch.float16])


def assert_agrees(case: Case) -> None:
    """The same pages and the same attention, of the same rows."""
    expected, actual = case.copy(), case.copy()
    expected.write(REFERENCE)
    actual.write(BACKEND)
    assert_written_alike(actual, expected)
    bound = BOUNDS[case.fused.dtype]
    torch.testing.assert_close(expected.attend(BACKEND), expected.attend(REFERENCE), rtol=bound, atol=bound)


def assert_written_alike(actual: Case, expected: Case) -> None:
    """Rotation rounds where transformers rounds, so queries and pages are equal to the bit, or one unit of a sum."""
    bound = 1e-6 if actual.fused.dtype == torch.float32 else 0.0
    for ours, theirs in (
        (actual.fused[:, : actual.width], expected.fused[:, : actual.width]),
        (actual.pages, expected.pages),
    ):
        torch.testing.assert_close(ours, theirs, rtol=bound, atol=bound, equal_nan=True)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(batches, st.sampled_from(HEADS), st.sampled_from([1, 4, 16, 48, 64]), st.booleans(), dtypes, st.integers(0, 99))
def test_any_ragged_batch(
    sequences: Sequences, heads: tuple[int, int, int], block_size: int, alibi: bool, dtype: torch.dtype, seed: int
) -> None:
    """Whatever mix of decodes and chunks, of pages and heads, is written and attended as the reference does."""
    assert_agrees(make_case(sequences, heads, block_size, alibi, dtype, seed=seed))


@pytest.mark.slow
@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize("heads", [(71, 1, 64), (8, 2, 128), (4, 4, 64)])
def test_boundaries_of_pages_tiles_and_splits(heads: tuple[int, int, int], alibi: bool) -> None:
    """Contexts of one less than, exactly and one more than each are attended to their last token and no further."""
    decodes = [(1, context) for context in (1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96)]
    chunks = [(15, 15), (16, 16), (17, 17), (2, 16), (2, 65), (16, 64), (17, 33)]
    assert_agrees(make_case(decodes + chunks, heads, 16, alibi))


@pytest.mark.slow
def test_splits_of_the_size_that_is_served() -> None:
    """Falcon-7B's decode at 1, 512, 513 and 1,300 tokens: one split, exactly one, two and three, merged."""
    case = make_case([(1, 1), (1, 512), (1, 513), (1, 1300)], (71, 1, 64), 64)
    case.write(REFERENCE)
    torch.testing.assert_close(case.attend(TritonBackend()), case.attend(REFERENCE), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_decode_does_not_depend_on_its_neighbours() -> None:
    """To the bit: neither on how many there are, nor on how long they are."""
    case = make_case([(1, 37), (1, 300), (1, 33)], (71, 1, 64))
    case.write(REFERENCE)
    together = case.attend(BACKEND)
    for row in range(3):
        batch = PagedBatch(
            case.batch.positions[row : row + 1],
            case.batch.slot_mapping[row : row + 1],
            case.batch.block_tables[row : row + 1],
            (1,),
            case.batch.context_lengths[row : row + 1],
            num_decodes=1,
        )
        alone = replace(case, batch=batch, fused=case.fused[row : row + 1])
        assert torch.equal(alone.attend(BACKEND)[0], together[row])


def test_lengths_are_read_on_the_device() -> None:
    """A batch whose host side allows far longer contexts gives the same result: what a CUDA graph relies on."""
    case = make_case([(1, 5), (1, 40), (1, 64)], (7, 1, 32))
    case.write(REFERENCE)
    roomy = replace(case, batch=replace(case.batch, context_lengths=(900, 900, 900)))
    assert torch.equal(roomy.attend(BACKEND), case.attend(BACKEND))


def test_padding_of_a_batch_is_neither_written_nor_attended() -> None:
    """A row at position -1 without a slot leaves the pages as they were, and its result is zero."""
    case = make_case([(1, 5), (1, 9)], (7, 1, 32))
    position, slot = torch.tensor([4, -1]), torch.tensor([int(case.batch.slot_mapping[0]), -1])
    padded = replace(case, batch=replace(case.batch, positions=position, slot_mapping=slot)).copy()
    padded.write(BACKEND)
    out = padded.attend(BACKEND)
    case.write(REFERENCE)
    assert (out[1] == 0.0).all()
    torch.testing.assert_close(out[0], case.attend(REFERENCE)[0], rtol=1e-5, atol=1e-5)
    assert int((padded.pages.isnan() & ~case.pages.isnan()).any(-1).any(-1).any(-1).sum()) == 1


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(batches, st.sampled_from([(71, 1, 64), (8, 2, 128), (6, 3, 80)]), st.sampled_from([4, 16, 64]),
       st.sampled_from([torch.int8, torch.float8_e4m3fn]), dtypes, st.integers(0, 99))  # fmt: skip
def test_8_bit_pages(
    sequences: Sequences,
    heads: tuple[int, int, int],
    block_size: int,
    kv_dtype: torch.dtype,
    dtype: torch.dtype,
    seed: int,
) -> None:
    """Values, scales and what is attended of them are the reference's, to one step of the values at a tie."""
    expected = make_case(sequences, heads, block_size, dtype=dtype, kv_dtype=kv_dtype, seed=seed)
    actual = expected.copy()
    expected.write(REFERENCE)
    actual.write(BACKEND)
    ours, theirs = scales_of(actual.pages), scales_of(expected.pages)
    assert ours is not None
    assert theirs is not None
    torch.testing.assert_close(ours, theirs, equal_nan=True)
    steps = actual.pages.view(torch.int8).int() - expected.pages.view(torch.int8).int()
    assert steps.abs().max() <= 1
    assert (steps != 0).float().mean() < 0.01
    bound = BOUNDS[dtype]
    torch.testing.assert_close(expected.attend(BACKEND), expected.attend(REFERENCE), rtol=bound, atol=bound)


@pytest.mark.slow
@pytest.mark.parametrize("kv_dtype", [torch.int8, torch.float8_e4m3fn, torch.float16])
def test_copied_blocks_are_whole(kv_dtype: torch.dtype) -> None:
    """Blocks of 8-bit pages are copied with their scales."""
    case = make_case([(40, 40)], (7, 1, 32), 16, dtype=torch.float16, kv_dtype=kv_dtype)
    case.write(BACKEND)
    expected = case.attend(BACKEND)
    old, new = case.batch.block_tables[0], torch.tensor([b for b in range(5) if b not in case.batch.block_tables[0]])
    KVCache((case.pages,)).copy_blocks(old[:2], new)
    moved = replace(case.batch, block_tables=torch.cat((new, old[2:]))[None])
    case.pages.view(torch.uint8)[old[:2]] = 0
    assert torch.equal(replace(case, batch=moved).attend(BACKEND), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kv_dtype", [torch.int8, torch.float8_e4m3fn])
def test_8_bit_pages_lose_little(kv_dtype: torch.dtype) -> None:
    """Attention over quantized K and V is near that over exact ones: within 4 % of its norm (int8: 1 %)."""
    sequences = [(1, 80), (1, 33), (20, 90)]
    exact = make_case(sequences, (71, 1, 64))
    narrow = make_case(sequences, (71, 1, 64), kv_dtype=kv_dtype)
    for case in (exact, narrow):
        case.write(BACKEND)
    expected, actual = exact.attend(BACKEND), narrow.attend(BACKEND)
    assert (actual - expected).norm() / expected.norm() < (0.01 if kv_dtype == torch.int8 else 0.04)


@pytest.mark.parametrize(
    ("group", "tiles"),
    [
        (71, (64, 16)),
        (36, (64, 0)),
        (18, (32, 0)),
        (16, (16, 0)),
        (4, (16, 0)),
        (1, (16, 0)),
        (100, (128, 0)),
        (80, (64, 16)),
    ],
)
def test_tiles_of_a_group(group: int, tiles: tuple[int, int]) -> None:
    """Tiles are powers of two from 16 on; a second one is there only where it saves rows."""
    assert head_tiles(group) == tiles
