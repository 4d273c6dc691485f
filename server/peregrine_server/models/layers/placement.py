"""The layers whose weights stay in the host's memory (--cpu-offload-gb). Imports no torch."""

from collections.abc import Sequence

NUM_BUFFERS = 2
"""Layers that the device has room for to copy those into: one runs while the next arrives."""


def offloaded_layers(sizes: Sequence[int], offload_bytes: int) -> tuple[int, ...]:
    """Indices of the layers, of `sizes` bytes, that leave at least `offload_bytes` of the device free for others, or of
    all. Empty if none does: the buffers take what two layers leave.

    They are evenly spread, so that copies go on while the layers between them run, and a multiple of the buffers, so
    that a layer has the same buffer in every step.
    """
    if offload_bytes <= 0:
        return ()
    layers: tuple[int, ...] = ()
    for count in range(2 * NUM_BUFFERS, len(sizes) + 1, NUM_BUFFERS):
        layers = tuple(turn * len(sizes) // count for turn in range(count))
        if _freed(sizes, layers) >= offload_bytes:
            break
    return layers if _freed(sizes, layers) > 0 else ()


def host_bytes(sizes: Sequence[int], layers: Sequence[int]) -> int:
    """Bytes of those of the layers that stay in the host's memory."""
    return sum(sizes[layer] for layer in layers)


def buffer_bytes(sizes: Sequence[int], layers: Sequence[int]) -> int:
    """Bytes of the device's buffers: each has room for the largest layer that it takes in its turns."""
    turns = (layers[first::NUM_BUFFERS] for first in range(NUM_BUFFERS))
    return sum(max((sizes[layer] for layer in each), default=0) for each in turns)


def _freed(sizes: Sequence[int], layers: Sequence[int]) -> int:
    return host_bytes(sizes, layers) - buffer_bytes(sizes, layers)
