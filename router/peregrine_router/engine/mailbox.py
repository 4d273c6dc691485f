"""The way from the engine's task to a stream's: all waiting items are taken together, for one wakeup."""

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A queue with one reader, which takes all items at once. `asyncio.Queue` would cost each item a turn of the
    loop."""

    def __init__(self) -> None:
        self.items: list[T] = []
        """Items that wait for the reader."""
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: T) -> None:
        """Adds an item and wakes the reader. Never waits."""
        self.items.append(item)
        self.wake()

    def fail(self, error: Exception) -> None:
        """Ends the queue: the reader gets the waiting items, then `error`."""
        self._error = self._error or error
        self.wake()

    def wake(self) -> None:
        """Lets the reader, if it waits, take the items."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def take(self) -> list[T]:
        """Waits for an item; all items that have come. Raises the error that ended the queue."""
        if not self.items and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        items, self.items = self.items, []
        if not items and self._error is not None:
            raise self._error
        return items
