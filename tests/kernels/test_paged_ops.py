"""Rotary, KV write and attention of the CPU backends against the reference, over ragged batches on shuffled pages."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cpu_backends import both, native_backend, targets
from paged_cases import Case, Sequences, make_case
from peregrine_kernels import Backend, KVCache, PagedBatch
from peregrine_kernels.cpu import torch_attention as cpu_attention
from peregrine_kernels.kv_cache import scales_of, whole_blocks
from peregrine_kernels.reference.backend import ReferenceBackend

KV_DTYPES = [torch.int8, torch.float8_e4m3fn]

UNIT_ROUNDOFF = torch.finfo(torch.bfloat16).eps / 2

HEADS = [(71, 1, 64), (7, 1, 32), (3, 1, 256), (8, 2, 128), (6, 3, 80), (4, 4, 64), (1, 1, 32)]
"""Query heads, KV heads, head dim: multi-query (Falcon-7B's prime 71 first), grouped, multi-head."""

Make = Callable[[], Backend]


def assert_attention_agrees(backend: Make, case: Case, kv_dtype: torch.dtype | None = None) -> None:
    """float32 tightly; bfloat16 as well as rounding the probabilities and the result once each allows. `kv_dtype`: over
    what the pages hold in 8 bits."""
    case.write(ReferenceBackend())
    case = case if kv_dtype is None else case.quantized(kv_dtype)
    torch.testing.assert_close(case.attend(backend()), case.attend(ReferenceBackend()), rtol=1e-5, atol=1e-5)
    narrow = case.of_type(torch.bfloat16)
    exact = narrow.exact()
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
       st.sampled_from([1, 4, 16]), st.booleans(), st.sampled_from([None, *KV_DTYPES]),
       st.integers(0, 1000))  # fmt: skip
def test_attention_of_any_ragged_batch(
    backend: Make,
    sequences: Sequences,
    heads: tuple[int, int, int],
    block_size: int,
    alibi: bool,
    kv_dtype: torch.dtype | None,
    seed: int,
) -> None:
    """Whatever mix of decodes and prefill chunks, with or without a prefix, is attended as the reference does."""
    assert_attention_agrees(backend, make_case(sequences, heads, block_size, alibi, seed=seed), kv_dtype)


@both
@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize("heads", HEADS)
def test_attention_at_page_boundaries(backend: Make, heads: tuple[int, int, int], alibi: bool) -> None:
    """Contexts of one less than, exactly and one more than a page are attended to their last token and no further."""
    decodes = [(1, context) for context in (1, 15, 16, 17, 32, 33)]
    chunks = [(15, 15), (16, 16), (17, 17), (2, 16), (2, 17), (16, 32), (17, 33)]
    assert_attention_agrees(backend, make_case(decodes + chunks, heads, 16, alibi))


@both
@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize(("heads", "alibi"), [((71, 1, 64), False), ((6, 3, 80), True)])
def test_attention_of_8_bit_pages(
    backend: Make, heads: tuple[int, int, int], alibi: bool, kv_dtype: torch.dtype
) -> None:
    """Decodes and chunks of a page, of several segments and of several splits are attended as the reference does."""
    sequences = [(1, context) for context in (1, 17, 130, 700)] + [(17, 33), (9, 150)]
    assert_attention_agrees(backend, make_case(sequences, heads, 16, alibi), kv_dtype)


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
    for together, alone in results_together_and_alone(backend(), case):
        torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)


@targets
@pytest.mark.parametrize("kv_dtype", [None, *KV_DTYPES])
def test_native_attention_does_not_depend_on_neighbours(target: str, kv_dtype: torch.dtype | None) -> None:
    """To the bit, whatever the pages hold; contexts are of one segment, of several, and of several splits."""
    sequences = [(1, 37), (1, 600), (1, 128), (1, 1100), (5, 170), (9, 9)]
    case = make_case(sequences, (71, 1, 64), dtype=torch.bfloat16, kv_dtype=kv_dtype)
    case.write(native_backend(target))
    for together, alone in results_together_and_alone(native_backend(target), case):
        assert torch.equal(alone, together)


@targets
@pytest.mark.parametrize("kv_dtype", [None, *KV_DTYPES])
def test_native_attention_does_not_depend_on_chunks(target: str, kv_dtype: torch.dtype | None) -> None:
    """A prompt in one chunk, or in chunks that end within a tile and within a segment, gives the same, to the rounding
    of the result."""
    whole = make_case([(140, 140)], (71, 1, 64), dtype=torch.bfloat16, kv_dtype=kv_dtype)
    whole.write(native_backend(target))
    expected = whole.attend(native_backend(target))
    for start, end in pairwise((0, 3, 130, 131, 140)):
        batch = replace(
            whole.batch,
            positions=whole.batch.positions[start:end],
            slot_mapping=whole.batch.slot_mapping[start:end],
            query_lengths=(end - start,),
            context_lengths=(end,),
            num_decodes=int(end - start == 1),
        )
        chunk = replace(whole, batch=batch, fused=whole.fused[start:end], rotary=None)
        error = (chunk.attend(native_backend(target)) - expected[start:end]).abs()
        assert (error <= 2 * UNIT_ROUNDOFF * expected[start:end].abs() + 1e-5).all()


def results_together_and_alone(backend: Backend, case: Case) -> Iterator[tuple[Tensor, Tensor]]:
    """Attention of each sequence among all, and by itself."""
    together = case.attend(backend)
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
        yield together[start:end], alone.attend(backend)


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


@both
@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", HEADS)
def test_8_bit_pages_are_written_as_the_reference_writes_them(
    backend: Make, heads: tuple[int, int, int], dtype: torch.dtype, kv_dtype: torch.dtype
) -> None:
    """To the bit, scales and what was there before included; of heads that are zero, too, and of sizes far apart."""
    expected = make_case([(1, 17), (1, 1), (16, 16), (5, 33)], heads, dtype=dtype, kv_dtype=kv_dtype)
    expected.fused[2] = 0.0
    expected.fused[3:] *= torch.randn(len(expected.fused) - 3, expected.fused.shape[1]).exp().pow(6).to(dtype)
    actual = expected.copy()
    expected.write(ReferenceBackend())
    actual.write(backend())
    assert torch.equal(whole_blocks(actual.pages), whole_blocks(expected.pages))


@targets
def test_every_e4m3_value_is_attended_as_it_is(target: str) -> None:
    """The attention of a lone token is its V: each of the 254 values of e4m3, denormal ones included, comes back."""
    case = make_case([(1, 1)], (1, 1, 254), 1, dtype=torch.bfloat16, kv_dtype=torch.float8_e4m3fn)
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    values = codes[~codes.float().isnan()]
    block = int(case.batch.block_tables[0, 0])
    case.pages.view(torch.uint8)[block] = values.view(torch.uint8)
    scales = scales_of(case.pages)
    assert scales is not None
    scales[block] = 1.0
    assert torch.equal(case.attend(native_backend(target))[0], values.bfloat16())


def test_blocks_are_copied_in_every_layer_and_read_before_they_are_written() -> None:
    """A block that is copied and overwritten at once goes on in its copy as it was."""
    cache = KVCache.allocate(2, 5, 4, 1, 8, torch.float32, torch.device("cpu"))
    for pages in cache.layers:
        pages.normal_()
    before = [pages.clone() for pages in cache.layers]
    cache.copy_blocks(torch.tensor([0, 3]), torch.tensor([2, 0]))
    for pages, old in zip(cache.layers, before, strict=True):
        assert torch.equal(pages, old[[3, 1, 0, 3, 4]])
