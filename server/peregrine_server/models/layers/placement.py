"""The layers whose weights stay in the host's memory (--cpu-offload-gb). Imports no torch."""

NUM_BUFFERS = 2
"""Layers that the device has room for to copy those into: one runs while the next arrives."""


def offloaded_layers(num_layers: int, layer_bytes: int, offload_bytes: int) -> tuple[int, ...]:
    """Indices of the layers, of `layer_bytes` each, that leave at least `offload_bytes` of the device free for others,
    or of all. Empty if none does: the buffers take what two layers leave.

    They are evenly spread, so that copies go on while the layers between them run, and a multiple of the buffers, so
    that a layer has the same buffer in every step.
    """
    if offload_bytes <= 0:
        return ()
    wanted = NUM_BUFFERS + -(-offload_bytes // layer_bytes)
    count = min(-(-wanted // NUM_BUFFERS), num_layers // NUM_BUFFERS) * NUM_BUFFERS
    return tuple(turn * num_layers // count for turn in range(count)) if count > NUM_BUFFERS else ()
