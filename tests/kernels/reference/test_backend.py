"""The reference backend against the arithmetic of transformers."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import FalconConfig
from transformers.activations import ACT2FN
from transformers.models.falcon.modeling_falcon import FalconAttention, FalconRotaryEmbedding, build_alibi_tensor

from peregrine_kernels import DenseWeight, KVCache, PagedBatch, Rotary
from peregrine_kernels.reference.backend import ACTIVATIONS, ReferenceBackend

BLOCK_SIZE = 16

VARIANTS: dict[str, dict[str, Any]] = {
    "multi-query": {"multi_query": True, "num_attention_heads": 7},
    "grouped": {"new_decoder_architecture": True, "num_attention_heads": 8, "num_kv_heads": 2},
    "multi-head": {"multi_query": False, "num_attention_heads": 4},
    "alibi": {"multi_query": False, "num_attention_heads": 4, "alibi": True},
    "alibi, odd heads": {"multi_query": False, "num_attention_heads": 6, "alibi": True},
}


def num_kv_heads(attention: FalconAttention) -> int:
    assert attention.num_kv_heads is not None
    return attention.num_kv_heads


def split_fused(fused: Tensor, attention: FalconAttention) -> Tensor:
    """transformers' order of fused [T, ...] -> all q, all k, all v."""
    config, head_dim = attention.config, attention.head_dim
    if config.new_decoder_architecture:
        heads = fused.view(len(fused), num_kv_heads(attention), -1, head_dim)
        parts: tuple[Tensor, ...] = (heads[:, :, :-2], heads[:, :, -2], heads[:, :, -1])
    elif config.multi_query:
        return fused
    else:
        parts = fused.view(len(fused), -1, 3, head_dim).unbind(2)
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def attend_paged(qkv: Tensor, chunks: list[int], kv_heads: int, head_dim: int, rotary: Rotary | None,
                 slopes: Tensor | None) -> Tensor:  # fmt: skip
    """[T, Hq * D] of one sequence that arrives in chunks."""
    backend, num_heads = ReferenceBackend(), qkv.shape[1] // head_dim - 2 * kv_heads
    num_blocks = -(-len(qkv) // BLOCK_SIZE)
    cache = KVCache.allocate(1, num_blocks, BLOCK_SIZE, kv_heads, head_dim, qkv.dtype, qkv.device)
    out = torch.empty(len(qkv), num_heads * head_dim, dtype=qkv.dtype)
    start = 0
    for chunk in chunks:
        rows, end = slice(start, start + chunk), start + chunk
        position = torch.arange(start, end)
        batch = PagedBatch(position, position, torch.arange(num_blocks)[None], (chunk,), (end,), int(chunk == 1))
        cos_sin = None if rotary is None else (rotary[0][rows], rotary[1][rows])
        backend.rotary_kv_write(qkv[rows], cos_sin, batch, cache.layers[0], num_heads)
        q = qkv[rows, : num_heads * head_dim]
        backend.attention(q, batch, cache.layers[0], slopes, out[rows])
        start = end
    return out


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_attention_is_that_of_transformers(variant: str, implementation: str) -> None:
    """A sequence in chunks attends as FalconAttention does at once, past 256 too, where ALiBi's positions round."""
    torch.manual_seed(0)
    options = {**VARIANTS[variant], "attn_implementation": implementation}
    config = FalconConfig(hidden_size=options["num_attention_heads"] * 32, **options)
    attention = FalconAttention(config, layer_idx=0)
    hidden, position = torch.randn(1, 300, config.hidden_size), torch.arange(300)
    mask = torch.full((300, 300), torch.finfo(torch.float32).min).triu(1)[None, None]
    rotary, alibi, slopes = FalconRotaryEmbedding(config)(hidden, position[None]), None, None
    if config.alibi:
        alibi = build_alibi_tensor(torch.ones(1, 300, dtype=torch.long), config.num_attention_heads, torch.float32)
        slopes = alibi[:, 0, 1]
        if implementation == "sdpa":
            mask = mask + alibi[None] / 32**0.5
    expected, _ = attention(hidden, alibi, mask, position_embeddings=rotary)
    qkv = split_fused(attention.query_key_value(hidden)[0], attention)
    cos_sin = None if config.alibi else (rotary[0][0, :, None], rotary[1][0, :, None])
    out = attend_paged(qkv, [100, 1, 1, 198], num_kv_heads(attention), 32, cos_sin, slopes)
    torch.testing.assert_close(attention.dense(out), expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activation_is_that_of_transformers(name: str, dtype: torch.dtype) -> None:
    """Every activation has the meaning that its name has in transformers' configs."""
    x = torch.linspace(-6, 6, 1001).to(dtype)[None]
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(ACTIVATIONS[name](x), ACT2FN[name](x), rtol=2 * eps, atol=2 * eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layer_norm_is_that_of_torch(dtype: torch.dtype) -> None:
    """The formula written out is what nn.LayerNorm computes."""
    x, weight, bias = torch.randn(5, 96).to(dtype), torch.randn(96).to(dtype), torch.randn(96).to(dtype)
    actual = ReferenceBackend().layer_norm(x, weight, bias, 1e-5)
    torch.testing.assert_close(actual, F.layer_norm(x, (96,), weight, bias, 1e-5))


def test_linear_rounds_before_the_bias() -> None:
    """In bfloat16 the bias is added to the rounded product, as FalconLinear does."""
    x, weight, bias = torch.randn(4, 64).bfloat16(), torch.randn(8, 64).bfloat16(), torch.randn(8).bfloat16()
    assert torch.equal(ReferenceBackend().linear(DenseWeight(weight), bias)(x), x @ weight.T + bias)
