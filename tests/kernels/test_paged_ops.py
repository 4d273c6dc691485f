"""Rotary, KV write and attention of the CPU backends against the reference, over ragged batches on shuffled pages."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_backends import both
from paged_cases import Case, Sequences, make_case
from peregrine_kernels import Backend, KVCache, PagedBatch
from peregrine_kernels.cpu import torch_attention as cpu_attention
from peregrine_kernels.reference.backend import ReferenceBackend

UNIT_ROUNDOFF = torch.finfo(torch.bfloat16).eps / 2

HEADS = [(71, 1, 64), (7, 1, 32), (3, 1, 256), (8, 2, 128), (6, 3, 80), (4, 4, 64), (1, 1, 32)]
"""Query heads, KV heads, head dim: multi-query (Falcon-7B's prime 71 first), grouped, multi-head."""

Make = Callable[[], Backend]


def assert_attention_agrees(backend: Make, case: Case) -> None:
    """float32 tightly; bfloat16 as well as rounding the probabilities and the result once each allows."""
    case.write(ReferenceBackend())
    torch.testing.assert_close(case.attend(backend()), case.attend(ReferenceBackend()), rtol=1e-5, atol=1e-5)
    narrow = case.of_type(torch.bfloat16)
    exact = narrow.of_type(torch.float64)
    expected = exact.attend(ReferenceBackend())
    exact.pages[:, :, 1].abs_()
    bound = 1.01 * UNIT_ROUNDOFF * (expected.abs() + exact.attend(ReferenceBackend())) + 1e-5
    error = (narrow.attend(backend()) - expected).abs()
    assert (error <= bound).all(), f"{(error / bound).max()} times the bound"


lengths = st.integers(1, 40).flatmap(lambda context: st.tuples(st.integers(1, context), st.just(context)))


@pytest.mark.slow
@both
@settings(max_examples=20, deadline=None)
@given(st.lists(st.one_of(lengths, lengths.map(lambda x: (1, x[1]))), min_size=1, max_size=6), st.sampled_from(HEADS),
       st.sampled_from([1, 4, 16]), st.booleans(), st.integers(0, 1000))  # fmt: skip
def test_attention_of_any_ragged_batch(
    backend: Make, sequences: Sequences, heads: tuple[int, int, int], block_size: int, alibi: bool, seed: int
) -> None:
    """Whatever mix of decodes and prefill chunks, with or without a prefix, is attended as the reference does."""
    assert_attention_agrees(backend, make_case(sequences, heads, block_size, alibi, seed=seed))


@both
@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize("heads", HEADS)
def test_attention_at_page_boundaries(backend: Make, heads: tuple[int, int, int], alibi: bool) -> None:
    """Contexts of one less than, exactly and one more than a page are attended to their last token and no further."""
    decodes = [(1, context) for context in (1, 15, 16, 17, 32, 33)]
    chunks = [(15, 15), (16, 16), (17, 17), (2, 16), (2, 17), (16, 32), (17, 33)]
    assert_attention_agrees(backend, make_case(decodes + chunks, heads, 16, alibi))


@pytest.mark.slow
@both
def test_attention_of_lengths_far_apart(backend: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decodes split into groups, and chunks into blocks of queries, give what one group and one block give."""
    monkeypatch.setattr(cpu_attention, "MAX_KEYS", 4096)
    monkeypatch.setattr(cpu_attention, "MAX_SCORES", 16384)
    sequences = [(1, context) for context in (3, 500, 4, 90, 260, 100, 5)] + [(70, 70), (33, 133), (150, 250)]
    assert_attention_agrees(backend, make_case(sequences, (7, 1, 32)))
    assert_attention_agrees(backend, make_case(sequences, (8, 2, 32), alibi=True))


@both
def test_attention_does_not_depend_on_neighbours(backend: Make) -> None:
    """In float32 a sequence's result is the same alone and among others, to 1e-6."""
    case = make_case([(1, 37), (1, 60), (1, 33), (20, 50), (9, 9)], (71, 1, 64))
    case.write(backend())
    together = case.attend(backend())
    starts = torch.tensor((0, *case.batch.query_lengths)).cumsum(0).tolist()
    for sequence, (start, end) in enumerate(pairwise(starts)):
        batch = PagedBatch(
            case.batch.positions[start:end],
            case.batch.slot_mapping[start:end],
            case.batch.block_tables[sequence : sequence + 1],
            case.batch.query_lengths[sequence : sequence + 1],
            case.batch.context_lengths[sequence : sequence + 1],
            int(end - start == 1),
        )
        alone = replace(case, batch=batch, fused=case.fused[start:end], rotary=None)
        torch.testing.assert_close(alone.attend(backend()), together[start:end], rtol=0, atol=1e-6)


@both
def test_one_backend_serves_many_steps(backend: Make) -> None:
    """A plan made for one batch is not used for the next, nor for other slopes."""
    made = backend()
    for sequences, alibi in (([(1, 20)], False), ([(1, 20)], True), ([(1, 7), (5, 9)], True), ([(1, 20)], False)):
        case = make_case(sequences, (4, 4, 64), alibi=alibi)
        case.write(made)
        expected = case.attend(ReferenceBackend())
        torch.testing.assert_close(case.attend(made), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(case.attend(made), expected, rtol=1e-5, atol=1e-5)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize("heads", HEADS)
def test_rotary_kv_write_is_the_reference_to_the_bit(
    backend: Make, heads: tuple[int, int, int], alibi: bool, dtype: torch.dtype
) -> None:
    """Rotation rounds where transformers rounds; pages get exactly this step's tokens and keep all others."""
    expected = make_case([(1, 17), (1, 1), (16, 16), (5, 33)], heads, alibi=alibi).of_type(dtype)
    actual = expected.of_type(dtype)
    expected.write(ReferenceBackend())
    actual.write(backend())
    for ours, theirs in ((actual.fused, expected.fused), (actual.pages, expected.pages)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_blocks_are_copied_in_every_layer_and_read_before_they_are_written() -> None:
    """A block that is copied and overwritten at once goes on in its copy as it was."""
    cache = KVCache.allocate(2, 5, 4, 1, 8, torch.float32, torch.device("cpu"))
    for pages in cache.layers:
        pages.normal_()
    before = [pages.clone() for pages in cache.layers]
    cache.copy_blocks(torch.tensor([0, 3]), torch.tensor([2, 0]))
    for pages, old in zip(cache.layers, before, strict=True):
        assert torch.equal(pages, old[[3, 1, 0, 3, 4]])
