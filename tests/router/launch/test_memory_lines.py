"""The start-up lines on memory."""

from peregrine_router.launch.memory_lines import memory_lines


def test_the_lines_have_mib_tokens_and_bytes() -> None:
    """And the type of an 8-bit cache."""
    assert memory_lines(3 * 2**20, 1024, 2048, None) == [
        "  weights   3 MiB",
        "  KV cache  2 MiB: 1,024 tokens of 2,048 bytes",
    ]
    assert memory_lines(0, 1024, 1088, "int8")[1] == "  KV cache  1 MiB: 1,024 tokens of 1,088 bytes, int8"
