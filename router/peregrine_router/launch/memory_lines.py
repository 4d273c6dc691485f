"""The start-up lines on memory, which `peregrine plan` foretells, and on the time that filling it took."""

from collections.abc import Sequence

from peregrine_router.hardware import roof_of
from peregrine_server.protocol import Ready


def memory_lines(weight_bytes: int, kv_tokens: int, kv_bytes_per_token: int, kv_cache_dtype: str | None) -> list[str]:
    """Bytes are those of all shards; `kv_cache_dtype` None: 16 bits or more."""
    kind = f", {kv_cache_dtype}" if kv_cache_dtype else ""
    cache = kv_tokens * kv_bytes_per_token
    return [
        f"  weights   {weight_bytes / 2**20:,.0f} MiB",
        f"  KV cache  {cache / 2**20:,.0f} MiB: {kv_tokens:,} tokens of {kv_bytes_per_token:,} bytes{kind}",
    ]


def offload_lines(ready: Sequence[Ready]) -> list[str]:
    """How much slower weights in the host's memory make a step, by the speed of its copies and the bandwidth of the
    device's own memory; nothing if there are none."""
    slowest = max(ready, key=lambda shard: shard.host_bytes / (shard.link_bytes_per_second or 1.0))
    if not slowest.host_bytes:
        return []
    copying = slowest.host_bytes / slowest.link_bytes_per_second
    line = (
        f"  offload   {sum(shard.host_bytes for shard in ready) / 2**20:,.0f} MiB of weights in the host's memory: at "
        f"{slowest.link_bytes_per_second / 1e9:.1f} GB/s a step takes {copying * 1e3:,.0f} ms at least"
    )
    if (roof := roof_of(slowest.device_name)) is None:
        return [line]
    resident = (slowest.weight_bytes + slowest.host_bytes) / roof.bytes_per_second
    return [f"{line}, {copying / resident:,.0f} times what it would with all on the GPU"]


def load_line(read_bytes: int, seconds: float) -> str:
    """The start-up line on reading the weights: bytes of all shards, which read at once; seconds of the slowest."""
    speed = read_bytes / 1e9 / max(seconds, 1e-3)
    return f"  loaded    {read_bytes / 1e9:,.2f} GB in {seconds:,.1f} s, {speed:,.2f} GB/s"
