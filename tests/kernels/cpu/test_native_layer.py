"""Whole layers and models as one operation of the native kernels."""

import math

import pytest
import torch
from torch import Tensor

from cpu_backends import native_backend, targets
from int4_weights import random_int4
from paged_cases import copied
from peregrine_kernels import Backend, DenseWeight, KVCache, LayerParts, ModelParts, PagedBatch, Rotary, Weight
from peregrine_kernels.cpu.torch_backend import TorchBackend
from peregrine_kernels.kv_cache import whole_blocks, write_pages
from peregrine_server.models.layers.positions import RotaryPositions

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN = 96, 6, 2, 32, 200
ROTARY = RotaryPositions(1e4 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM), torch.bfloat16)


def make_parts(backend: Backend, has_bias: bool, has_two_norms: bool, alibi: bool, is_int4: bool = False) -> LayerParts:
    """The MLP's second linear is of bfloat16 in any case: formats may differ within a layer."""

    def random(*shape: int) -> Tensor:
        return (torch.randn(shape) / math.sqrt(shape[-1])).bfloat16()

    def weight(num_outputs: int, num_inputs: int) -> Weight:
        return random_int4(num_outputs, num_inputs, 32) if is_int4 else DenseWeight(random(num_outputs, num_inputs))

    width = (HEADS + 2 * KV_HEADS) * HEAD_DIM
    biases = (random(width), random(FFN)) if has_bias else (None, None)
    norms = [(torch.rand(HIDDEN).bfloat16(), random(HIDDEN)) for _ in range(2)]
    return LayerParts(
        norms[0],
        norms[1] if has_two_norms else None,
        1e-5,
        backend.linear(weight(width, HIDDEN), biases[0]),
        backend.linear(weight(FFN, HIDDEN), biases[1], "gelu"),
        backend.linear(weight(HIDDEN, HEADS * HEAD_DIM)),
        backend.linear(DenseWeight(random(HIDDEN, FFN))),
        HEADS,
        KV_HEADS,
        torch.rand(HEADS).bfloat16().float() if alibi else None,
    )


def make_batch(kv_dtype: torch.dtype) -> tuple[PagedBatch, tuple[Tensor, ...]]:
    """A decode of 600 tokens, whose splits are merged, and a chunk of 3 after 2, on pages of 16 of two layers."""
    positions = torch.tensor([599, 2, 3, 4])
    tables = torch.zeros(2, 38, dtype=torch.int64)
    tables[0], tables[1, 0] = torch.arange(2, 40), 1
    slots = torch.tensor([39 * 16 + 599 % 16, 18, 19, 20])
    pages = KVCache.allocate(2, 40, 16, KV_HEADS, HEAD_DIM, kv_dtype, torch.device("cpu")).layers
    for each in pages:
        write_pages(each, torch.arange(40 * 16), torch.randn(40 * 16, 2, KV_HEADS, HEAD_DIM).bfloat16())
    return PagedBatch(positions, slots, tables, (1, 3), (600, 5), 1), pages


def by_parts(
    backend: Backend, parts: LayerParts, x: Tensor, rotary: Rotary | None, batch: PagedBatch, pages: Tensor, adds: bool
) -> Tensor:
    """One layer, operation by operation."""
    normed = backend.layer_norm(x, *parts.attention_norm, parts.epsilon)
    qkv = parts.qkv(normed)
    backend.rotary_kv_write(qkv, rotary, batch, pages, HEADS)
    attended = backend.attention(qkv[:, : HEADS * HEAD_DIM], batch, pages, parts.alibi_slopes)
    normed = normed if parts.mlp_norm is None else backend.layer_norm(x, *parts.mlp_norm, parts.epsilon)
    return parts.down(parts.up(normed), parts.dense(attended, x if adds else None))


CASES = pytest.mark.parametrize(
    ("has_bias", "has_two_norms", "alibi", "kv_dtype", "is_int4"),
    [
        (False, False, False, torch.bfloat16, False),
        (True, True, True, torch.bfloat16, True),
        (False, True, False, torch.int8, False),
        (True, False, True, torch.float8_e4m3fn, True),
    ],
)


@targets
@pytest.mark.parametrize("has_residual", [True, False])
@CASES
def test_a_fused_layer_is_its_parts_to_the_bit(
    has_bias: bool,
    has_two_norms: bool,
    alibi: bool,
    kv_dtype: torch.dtype,
    is_int4: bool,
    has_residual: bool,
    target: str,
) -> None:
    """One call gives what the operations give that a layer is made of, in the output as in the pages."""
    torch.manual_seed(0)
    backend = native_backend(target)
    parts = make_parts(backend, has_bias, has_two_norms, alibi, is_int4)
    batch, (pages, _) = make_batch(kv_dtype)
    rotary = None if alibi else ROTARY(batch.positions)
    x, expected_pages = torch.randn(4, HIDDEN).bfloat16(), copied(pages)
    fused = backend.fused_layer(parts)
    assert fused is not None
    out = fused(x, rotary, batch, pages, has_residual)
    assert torch.equal(out, by_parts(backend, parts, x, rotary, batch, expected_pages, has_residual))
    assert torch.equal(whole_blocks(pages), whole_blocks(expected_pages))


@targets
@CASES
def test_a_fused_model_is_its_parts_to_the_bit(
    has_bias: bool, has_two_norms: bool, alibi: bool, kv_dtype: torch.dtype, is_int4: bool, target: str
) -> None:
    """One call gives what embedding, positions, two layers, the last norm and the head give one after the other."""
    torch.manual_seed(0)
    backend = native_backend(target)
    layers = [make_parts(backend, has_bias, has_two_norms, alibi, is_int4) for _ in range(2)]
    table, norm = torch.randn(50, HIDDEN).bfloat16(), (torch.rand(HIDDEN).bfloat16(), torch.randn(HIDDEN).bfloat16())
    frequencies, head = None if alibi else ROTARY.inverse_frequencies, backend.linear(DenseWeight(table))
    fused = backend.fused_model(ModelParts(table, frequencies, layers, norm, 1e-5, head))
    assert fused is not None
    token_ids, (batch, pages) = torch.tensor([7, 49, 0, 7]), make_batch(kv_dtype)
    expected_pages = tuple(map(copied, pages))
    hidden = fused(token_ids, batch, pages)
    rows = torch.tensor([3, 0, 3])
    some, every = (fused.logits(token_ids, batch, pages, chosen) for chosen in (rows, None))

    rotary, expected = None if alibi else ROTARY(batch.positions), table[token_ids]
    for parts, each in zip(layers, expected_pages, strict=True):
        expected = by_parts(backend, parts, expected, rotary, batch, each, True)
    expected = backend.layer_norm(expected, *norm, 1e-5)
    assert torch.equal(hidden, expected)
    assert torch.equal(every, head(expected).float())
    assert torch.equal(some, every[rows])
    assert all(map(torch.equal, map(whole_blocks, pages), map(whole_blocks, expected_pages)))


@targets
def test_only_native_linears_are_fused(target: str) -> None:
    """A layer whose weights are not packed for the native kernels is called part by part."""
    assert native_backend(target).fused_layer(make_parts(TorchBackend(), False, False, False)) is None
