"""A runner's memory and kernels, as its options ask."""

import pytest

from falcons import falcon_config
from peregrine_kernels import KVCache
from peregrine_router.launch.model_files import demo_path
from peregrine_server.models.falcon.footprint import kv_bytes_per_token
from runners import load_runner

DEMO = demo_path()


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8_e4m3fn"])
def test_a_runner_keeps_kv_in_8_bits(kv_dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the backend has such pages, the cache is of them, and its tokens are counted with their scales."""
    monkeypatch.setenv("PEREGRINE_BACKEND", "reference")
    runner = load_runner(DEMO, kv_cache_dtype=kv_dtype)
    assert runner.ready.cache.kv_bytes_per_token == kv_bytes_per_token(falcon_config(DEMO), 1, "float32", is_8_bit=True)
    cache = runner.model.allocate_cache(1, 16, 1)
    assert isinstance(cache, KVCache)
    assert cache.layers[0].dtype.itemsize == 1


def test_a_format_that_computes_in_another_dtype_is_refused() -> None:
    """Its kernels would read one type as the other; the router refuses these options before a shard starts."""
    with pytest.raises(ValueError, match=r"^--quantize int8 computes in bfloat16: leave --dtype float32 out$"):
        load_runner(DEMO, quantize="int8")


def test_kv_of_8_bits_is_refused_where_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line that says what to do: on a CPU, and for e5m2 everywhere."""
    with pytest.raises(ValueError, match=r"^--kv-cache-dtype int8 needs a GPU: leave it out$"):
        load_runner(DEMO, kv_cache_dtype="int8")
    monkeypatch.setenv("PEREGRINE_BACKEND", "reference")
    with pytest.raises(ValueError, match=r"^--kv-cache-dtype fp8_e5m2 has no kernels: choose one of int8, fp8_e4m3fn$"):
        load_runner(DEMO, kv_cache_dtype="fp8_e5m2")
