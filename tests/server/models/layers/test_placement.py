"""Layers that stay in the host's memory."""

import pytest

from peregrine_server.models.layers.placement import offloaded_layers


@pytest.mark.parametrize(
    ("num_layers", "offload_bytes", "layers"),
    [
        (8, 0, ()),
        (8, 1, (0, 2, 4, 6)),
        (8, 200, (0, 2, 4, 6)),
        (8, 201, (0, 1, 2, 4, 5, 6)),
        (9, 10_000, (0, 1, 2, 3, 4, 5, 6, 7)),
        (3, 10_000, ()),
    ],
)
def test_layers_are_evenly_spread(num_layers: int, offload_bytes: int, layers: tuple[int, ...]) -> None:
    """Two more than are saved, for the buffers, of 100 bytes each; an even number; all there are at most."""
    assert offloaded_layers(num_layers, 100, offload_bytes) == layers
