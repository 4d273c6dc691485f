"""The demo's shape, and FalconForCausalLM's forward for training: same modules, a faster attention.

With the single KV head and a mask, as transformers passes them, scaled_dot_product_attention computes with
plain matrices; with expanded heads and `is_causal` it takes the flash kernel (3470 instead of 2666 tokens a second
on 2 cores with AVX512-BF16, batches of 8 x 512).
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import FalconConfig, FalconForCausalLM
from transformers.models.falcon.modeling_falcon import FalconAttention, FalconDecoderLayer
from vocabulary import END_OF_TEXT_ID, MAX_POSITIONS, VOCAB_SIZE


def falcon_config() -> FalconConfig:
    """falcon-7b's architecture, 6.6 million parameters wide."""
    return FalconConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_kv_heads=1,  # transformers 5 would write the number of query heads
        ffn_hidden_size=1024,
        max_position_embeddings=MAX_POSITIONS,
        multi_query=True,
        parallel_attn=True,
        new_decoder_architecture=False,
        alibi=False,
        bias=False,
        activation="gelu",
        tie_word_embeddings=True,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        bos_token_id=None,
        eos_token_id=END_OF_TEXT_ID,
    )


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in the rotate-half form; x is [batch, heads, length, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def attention(module: FalconAttention, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Causal multi-query attention; rows of the fused projection are the query heads, then k, then v."""
    batch, length, hidden = x.shape
    heads = module.num_heads
    size = hidden // heads
    fused = module.query_key_value(x).view(batch, length, heads + 2, size).transpose(1, 2)
    query, key, value = fused.split((heads, 1, 1), dim=1)
    query, key = rotate(query, cos, sin).to(value.dtype), rotate(key, cos, sin).to(value.dtype)
    shape = (batch, heads, length, size)
    mixed = F.scaled_dot_product_attention(query, key.expand(shape), value.expand(shape), is_causal=True)
    return module.dense(mixed.transpose(1, 2).reshape(batch, length, hidden))  # type: ignore[no-any-return]


def block_output(block: FalconDecoderLayer, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """A block's contribution to the residual: attention and MLP read the same LayerNorm."""
    x = block.input_layernorm(hidden)
    return attention(block.self_attention, x, cos, sin) + block.mlp(x)  # type: ignore[no-any-return]


def logits(model: FalconForCausalLM, ids: Tensor, dropout: float) -> Tensor:
    """Scores of the next token, [batch, length, vocabulary]; dropout on what each block adds."""
    falcon = model.transformer
    hidden = falcon.word_embeddings(ids)
    positions = torch.arange(ids.shape[1])[None]
    cos, sin = (table[:, None] for table in falcon.rotary_emb(hidden, position_ids=positions))
    for block in cast(list[FalconDecoderLayer], falcon.h):
        hidden = hidden + F.dropout(block_output(block, hidden, cos, sin), dropout, training=dropout > 0)
    return model.lm_head(falcon.ln_f(hidden))  # type: ignore[no-any-return]


def loss(model: FalconForCausalLM, ids: Tensor, labels: Tensor, dropout: float) -> Tensor:
    """Mean cross entropy in nats over the labels that are not -100; bfloat16 matrices, float32 sums."""
    with torch.autocast("cpu", torch.bfloat16):
        scores = logits(model, ids, dropout)
    return F.cross_entropy(scores.float().flatten(0, 1), labels.flatten())


def check_forward(model: FalconForCausalLM) -> None:
    """This forward gives what transformers' own gives."""
    ids = torch.arange(1, 65).view(2, 32)
    with torch.no_grad():
        torch.testing.assert_close(logits(model, ids, 0.0), model(ids).logits, rtol=1e-4, atol=1e-4)
