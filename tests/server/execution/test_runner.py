"""A runner's memory and kernels, as its options ask."""

import pytest
import torch
from torch import Tensor

from falcons import falcon_config
from peregrine_kernels import KVCache, PagedBatch
from peregrine_router.launch.model_files import demo_path
from peregrine_server.models.falcon.footprint import kv_bytes_per_token
from peregrine_server.models.interface import ForwardContext
from runners import load_runner

DEMO = demo_path()


KV_DTYPES = {"int8": 0.02, "fp8_e4m3fn": 0.06}
"""The options, and the largest root mean square error of the demo's logits that each may cause, over that of logits."""


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_a_runner_keeps_kv_in_8_bits(kv_dtype: str) -> None:
    """The cache is of such pages, and its tokens are counted with their scales."""
    runner = load_runner(DEMO, kv_cache_dtype=kv_dtype)
    assert runner.ready.cache.kv_bytes_per_token == kv_bytes_per_token(falcon_config(DEMO), 1, "float32", is_8_bit=True)
    cache = runner.model.allocate_cache(1, 16, 1)
    assert isinstance(cache, KVCache)
    assert cache.layers[0].dtype.itemsize == 1


def test_a_format_that_computes_in_another_dtype_is_refused() -> None:
    """Its kernels would read one type as the other; the router refuses these options before a shard starts."""
    with pytest.raises(ValueError, match=r"^int8 weights compute in bfloat16: leave --dtype float32 out$"):
        load_runner(DEMO, quantize="int8")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kv_of_8_bits_moves_logits_a_little(dtype: str) -> None:
    """A prompt in two chunks, then a decode beside another: the logits are near those with KV in the model's dtype."""
    wide = demo_logits(dtype, None)
    for kv_dtype, bound in KV_DTYPES.items():
        error = (demo_logits(dtype, kv_dtype) - wide).square().mean().sqrt() / wide.square().mean().sqrt()
        assert 1e-4 < error < bound, (kv_dtype, float(error))


def demo_logits(dtype: str, kv_dtype: str | None) -> Tensor:
    """The logits of a decode that follows a prompt of 60 tokens, beside a prompt of 5."""
    torch.manual_seed(0)
    model = load_runner(DEMO, dtype=dtype, kv_cache_dtype=kv_dtype).model
    cache, tables = model.allocate_cache(8, 16, 1), torch.tensor([[3, 1, 4, 2], [6, 0, 0, 0]])
    tokens = torch.randint(100, 4000, (2, 61))
    logits = []
    for queries, contexts in (((40, 0), (40, 0)), ((20, 0), (60, 0)), ((1, 5), (61, 5))):
        rows = [row for row in range(2) if queries[row]]
        positions = [torch.arange(contexts[row] - queries[row], contexts[row]) for row in rows]
        slots = [tables[row, at // 16] * 16 + at % 16 for row, at in zip(rows, positions, strict=True)]
        batch = PagedBatch(
            torch.cat(positions),
            torch.cat(slots),
            tables[rows],
            tuple(queries[row] for row in rows),
            tuple(contexts[row] for row in rows),
            int(queries[0] == 1),
        )
        ids = torch.cat([tokens[row, at] for row, at in zip(rows, positions, strict=True)])
        logits.append(model.next_logits(ids, ForwardContext(batch, cache)))
    return torch.cat(logits)


def test_kv_of_8_bits_is_refused_where_there_are_no_kernels() -> None:
    """In one line that says what to do: for e5m2."""
    with pytest.raises(ValueError, match=r"^--kv-cache-dtype fp8_e5m2 has no kernels: choose one of int8, fp8_e4m3fn$"):
        load_runner(DEMO, kv_cache_dtype="fp8_e5m2")


def test_a_context_that_no_memory_holds_is_refused() -> None:
    """config.json may claim millions of tokens: the error names the option, before anything is allocated for them."""
    with pytest.raises(ValueError, match=r"^128 sequences of --max-total-tokens 16777216000 do not fit into memory"):
        load_runner(DEMO, max_batch_size=128, max_total_tokens=16_777_216_000)
