"""Layers that stay in the host's memory."""

import pytest

from peregrine_server.models.layers.placement import buffer_bytes, host_bytes, offloaded_layers


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
    assert offloaded_layers([100] * num_layers, offload_bytes) == layers


@pytest.mark.parametrize(
    ("offload_bytes", "layers", "freed"),
    [(1, (0, 2, 4, 6), 150), (150, (0, 2, 4, 6), 150), (151, (0, 1, 2, 4, 5, 6), 350), (999, tuple(range(8)), 550)],
)
def test_layers_of_several_sizes(offload_bytes: int, layers: tuple[int, ...], freed: int) -> None:
    """As many as free enough beside their buffers, each as large as the largest layer of its turns."""
    sizes = [100, 100, 50, 150, 100, 150, 100, 50]
    assert offloaded_layers(sizes, offload_bytes) == layers
    assert host_bytes(sizes, layers) - buffer_bytes(sizes, layers) == freed


def test_a_buffer_has_room_for_the_layers_of_its_turns() -> None:
    """Turns 0 and 2 have one, 1 and 3 the other; there are none where all layers stay."""
    assert buffer_bytes([3, 50, 5, 7], (0, 1, 2, 3)) == 5 + 50
    assert buffer_bytes([3, 5], ()) == host_bytes([3, 5], ()) == 0


def test_buffers_may_take_all_that_leaves() -> None:
    """Two large layers of four are as large as all: nothing is gained, so all stay."""
    assert offloaded_layers([100, 100, 0, 0], 1) == ()
