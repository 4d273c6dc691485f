"""The start-up lines on memory, which `peregrine plan` foretells."""


def memory_lines(weight_bytes: int, kv_tokens: int, kv_bytes_per_token: int, kv_cache_dtype: str | None) -> list[str]:
    """Bytes are those of all shards; `kv_cache_dtype` None: 16 bits or more."""
    kind = f", {kv_cache_dtype}" if kv_cache_dtype else ""
    cache = kv_tokens * kv_bytes_per_token
    return [
        f"  weights   {weight_bytes / 2**20:,.0f} MiB",
        f"  KV cache  {cache / 2**20:,.0f} MiB: {kv_tokens:,} tokens of {kv_bytes_per_token:,} bytes{kind}",
    ]
