"""The start-up lines on memory."""

from peregrine_router.launch.memory_lines import load_line, memory_lines, offload_lines
from peregrine_server.protocol import CacheSpec, Ready


def test_the_lines_have_mib_tokens_and_bytes() -> None:
    """And the type of an 8-bit cache."""
    assert memory_lines(3 * 2**20, 1024, 2048, None) == [
        "  weights   3 MiB",
        "  KV cache  2 MiB: 1,024 tokens of 2,048 bytes",
    ]
    assert memory_lines(0, 1024, 1088, "int8")[1] == "  KV cache  1 MiB: 1,024 tokens of 1,088 bytes, int8"


def ready(host_bytes: int, speed: float, device_name: str = "NVIDIA A100-SXM4-80GB") -> Ready:
    cache = CacheSpec(64)
    return Ready(0, "cuda:0", "bfloat16", 10**9, 4, 16, cache, "Triton", device_name, host_bytes, speed)


def test_weights_on_the_host_are_said_with_what_they_cost() -> None:
    """The slowest shard's copies, beside reading all weights from the GPU's own memory: 4 GB at 20 GB/s, 5 GB at
    2,039."""
    (line,) = offload_lines([ready(4 * 10**9, 20e9), ready(4 * 10**9, 25e9)])
    assert "7,629 MiB of weights in the host's memory" in line
    assert "at 20.0 GB/s a step takes 200 ms at least, 82 times what it would with all on the GPU" in line
    assert offload_lines([ready(4 * 10**9, 20e9, "")])[0].endswith("200 ms at least")
    assert offload_lines([ready(0, 0.0)]) == []


def test_the_line_of_the_load_has_bytes_seconds_and_speed() -> None:
    """A load of no time is no division by zero."""
    assert load_line(13_840_000_000, 9.24) == "  loaded    13.84 GB in 9.2 s, 1.50 GB/s"
    assert load_line(0, 0.0) == "  loaded    0.00 GB in 0.0 s, 0.00 GB/s"
