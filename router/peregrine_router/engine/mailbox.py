"""From the engine's task to a stream's: what lies there is taken together, for one wakeup."""

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A queue of one reader, who takes all there is. `asyncio.Queue` would cost each item a turn of its own."""

    def __init__(self) -> None:
        self.items: list[T] = []
        """What lies there."""
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: T) -> None:
        """Adds an item and wakes the reader. Never waits."""
        self.items.append(item)
        self.wake()

    def fail(self, error: Exception) -> None:
        """The reader gets what lies there, then `error`."""
        self._error = self._error or error
        self.wake()

    def wake(self) -> None:
        """The reader, if it waits, takes what is there."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def take(self) -> list[T]:
        """Waits until something is there; everything that is. Raises the error that ended it."""
        if not self.items and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        items, self.items = self.items, []
        if not items and self._error is not None:
            raise self._error
        return items
