"""Layers of which some have their weights in the host's memory, and are copied to the device before they run.

The device has two buffers for those, each of the size of the largest that it takes in its turns. While a layer runs
from one, the next arrives in the other:

    computing   layer 0 ─┬─ layers 1, 2 ─┬─ layer 3 ─┬─ layers 4, 5 ─┬─ layer 6 (needs buffer 0) ...
    buffer 0    layer 0  └─ layer 6 arrives ─────────┼───────────────┘
    buffer 1    layer 3 (arrived before) ────────────└─ layer 9 arrives ...

After the last one come the first ones of the next step.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

import torch
from torch import Tensor

from peregrine_server.models.layers.copies import Arrival, Copies
from peregrine_server.models.layers.placement import NUM_BUFFERS

ALIGNMENT = 16
"""Bytes of which each tensor's place in a buffer is a multiple, as kernels ask of addresses."""
Layer = TypeVar("Layer")


class OffloadedLayers(Sequence[Layer]):
    """All layers in their order; iterating over them, from the first to the last, is a step."""

    def __init__(
        self,
        layers: Iterable[Layer],
        offloaded: Collection[int],
        stays: Callable[[Layer], object],
        copies: Copies,
    ) -> None:
        """`layers` are made one by one, so that the device holds one at most of those `offloaded`, by their indices, a
        multiple of NUM_BUFFERS. `stays`: a layer's parts that are read when it has run, or that others have too."""
        self.copies = copies
        self._turns = {index: turn for turn, index in enumerate(sorted(offloaded))}
        self._kept: list[Tensor] = []
        self._buffers: list[Tensor] = []
        self._layers = [self._placed(index, layer, stays) for index, layer in enumerate(layers)]
        self._arrivals = [self._start(turn) for turn in range(len(self._buffers))]

    def __iter__(self) -> Iterator[Layer]:
        """Each layer with its weights in place until the next is asked for."""
        for index, layer in enumerate(self._layers):
            turn = self._turns.get(index)
            if turn is None:
                yield layer
                continue
            buffer = turn % NUM_BUFFERS
            self.copies.wait(self._arrivals[buffer])
            yield layer
            self._arrivals[buffer] = self._start((turn + NUM_BUFFERS) % len(self._kept))

    def __len__(self) -> int:
        return len(self._layers)

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> list[Layer]: ...
    def __getitem__(self, index: int | slice) -> Layer | list[Layer]:
        """The layer, whose weights may be elsewhere."""
        return self._layers[index]

    def _start(self, turn: int) -> Arrival:
        """Copies the layer of that turn into its buffer."""
        kept = self._kept[turn]
        return self.copies.start(self._buffers[turn % NUM_BUFFERS][: len(kept)], kept)

    def _placed(self, index: int, layer: Layer, stays: Callable[[Layer], object]) -> Layer:
        """The layer, with its tensors in the buffer of its turn if it is offloaded."""
        if (turn := self._turns.get(index)) is None:
            return layer
        seen: dict[int, object] = {}
        list(tensors_of(stays(layer), seen))
        tensors = list(tensors_of(layer, seen))
        starts, num_bytes = _places(tensors)
        buffer = self._buffer(turn, num_bytes, tensors[0].device).untyped_storage()
        kept = self.copies.keep(num_bytes)
        for tensor in tensors:
            storage = tensor.untyped_storage()
            start, content = starts[storage.data_ptr()], tensor.new_empty(0, dtype=torch.uint8).set_(storage)
            kept[start : start + len(content)] = content
        for tensor in tensors:
            first = starts[tensor.untyped_storage().data_ptr()] // tensor.itemsize
            tensor.set_(buffer, first + tensor.storage_offset(), tensor.shape, tensor.stride())
        self._kept.append(kept)
        return layer

    def _buffer(self, turn: int, num_bytes: int, device: torch.device) -> Tensor:
        """uint8[N] of the device, N at least `num_bytes`: the buffer of that turn."""
        if turn < NUM_BUFFERS:
            self._buffers.append(torch.empty(num_bytes, dtype=torch.uint8, device=device))
        buffer = self._buffers[turn % NUM_BUFFERS]
        if len(buffer) < num_bytes:
            buffer.resize_(num_bytes)  # In place: tensors of the layers before stay in it.
        return buffer


def _places(tensors: list[Tensor]) -> tuple[dict[int, int], int]:
    """The first byte of each storage in a buffer, by the storage's address, and the size of the buffer."""
    starts, size = {}, 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in starts:
            starts[storage.data_ptr()] = size
            size += -(-storage.nbytes() // ALIGNMENT) * ALIGNMENT
    return starts, size


def tensors_of(value: Any, seen: dict[int, object]) -> Iterator[Tensor]:
    """The tensors that an object of this project's classes holds, but for those within `seen`, by id, which grows."""
    if id(value) in seen:
        return
    seen[id(value)] = value
    if isinstance(value, Tensor):
        yield value
        return
    for part in _parts(value):
        yield from tensors_of(part, seen)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, tuple | list):
        return value
    if not type(value).__module__.startswith("peregrine"):
        return ()
    slots = [name for each in type(value).__mro__ for name in getattr(each, "__slots__", ())]
    return [getattr(value, name) for name in (*slots, *getattr(value, "__dict__", ())) if hasattr(value, name)]
