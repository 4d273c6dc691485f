"""The bytes that an object of this project's classes holds in tensors."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor


def held_bytes(*objects: Any) -> int:
    """Bytes of all tensors within, each storage once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in _tensors(objects, {})}
    return sum(storage.nbytes() for storage in storages.values())


def _tensors(value: Any, seen: dict[int, Any]) -> Iterator[Tensor]:
    if id(value) in seen:
        return
    seen[id(value)] = value  # alive, so that no other object gets its id
    if isinstance(value, Tensor):
        yield value
        return
    for part in _parts(value):
        yield from _tensors(part, seen)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, tuple | list):
        return value
    if not type(value).__module__.startswith("peregrine"):
        return ()
    slots = [name for each in type(value).__mro__ for name in getattr(each, "__slots__", ())]
    return [getattr(value, name) for name in (*slots, *getattr(value, "__dict__", ())) if hasattr(value, name)]
