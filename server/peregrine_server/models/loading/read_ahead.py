"""Threads that load parts of a model at once: while one packs what it has read, the others read the next."""

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

import torch

READ_AHEAD_BYTES = 384 * 2**20
"""Bytes of tensors that all threads may have read, or be reading, and not packed; one larger tensor is read alone. Two
of the largest linears of a model of 7 B weights fit, which are rounded in half as much again: together that is its
embedding table's size, so that the peak of a load is the weights and one tensor."""
NUM_THREADS = 3
"""One that packs, on all cores, and two that read: from a virtual disk with cold pages one reads 0.8 GB/s, two 2.9."""

Item = TypeVar("Item")
Part = TypeVar("Part")


class ReadAhead:
    """The threads of one load, and the bytes that each holds."""

    def __init__(self, device: torch.device, limit: int | None = None) -> None:
        """`limit`: bytes; None: READ_AHEAD_BYTES."""
        self._device, self._limit = device, READ_AHEAD_BYTES if limit is None else limit
        self._held: dict[int, int] = {}
        self._changed = threading.Condition()

    def load(self, load: Callable[[Item], Part], items: Sequence[Item]) -> list[Part]:
        """`load` of each item, in order. Raises what the first to fail raises, after all threads have ended."""
        work = _Work(load, items, self._let_go)
        threads = self._start(work)
        work.run()
        for thread in threads:
            thread.join()
        return work.parts()

    def hold(self, num_bytes: int) -> None:
        """Waits until this thread may read a tensor of that size, when it has packed the one before."""
        thread = threading.get_ident()
        with self._changed:
            self._held.pop(thread, None)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._held or sum(self._held.values()) + num_bytes <= self._limit)
            self._held[thread] = num_bytes

    def _let_go(self) -> None:
        with self._changed:
            self._held.pop(threading.get_ident(), None)
            self._changed.notify_all()

    def _start(self, work: "_Work[Item, Part]") -> list[threading.Thread]:
        """Starts the threads besides this one, as many as can start."""
        self._let_go()  # What was read before stays.

        def run() -> None:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)
            work.run()

        threads = [threading.Thread(target=run, name="weights", daemon=True) for _ in range(NUM_THREADS - 1)]
        started = []
        for thread in threads:
            try:
                thread.start()
            except RuntimeError:  # "can't start new thread"
                break
            started.append(thread)
        return started


class _Work(Generic[Item, Part]):
    """Items that several threads take, and the parts that they made of them."""

    def __init__(self, load: Callable[[Item], Part], items: Sequence[Item], end: Callable[[], None]) -> None:
        """`end` is called by each thread after each item."""
        self._load, self._end, self._count = load, end, len(items)
        self._items: SimpleQueue[tuple[int, Item]] = SimpleQueue()
        for numbered in enumerate(items):
            self._items.put(numbered)
        self._parts: dict[int, Part] = {}
        self._errors: list[BaseException] = []

    def run(self) -> None:
        """Takes items until there are none, or one has failed."""
        while not self._errors:
            try:
                index, item = self._items.get_nowait()
            except Empty:
                return
            try:
                self._parts[index] = self._load(item)
            except BaseException as error:
                self._errors.append(error)
            finally:
                self._end()

    def parts(self) -> list[Part]:
        """The parts in the order of their items."""
        if self._errors:
            raise self._errors[0]
        return [self._parts[index] for index in range(self._count)]
