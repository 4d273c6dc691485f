"""The mailbox between the engine and a stream."""

import asyncio

import pytest

from peregrine_router.engine.mailbox import Mailbox


async def test_all_that_waits_is_taken_at_once() -> None:
    """A slow reader gets everything, in order, and then waits for more."""
    box: Mailbox[int] = Mailbox()
    for item in (1, 2, 3):
        box.put(item)
    assert await box.take() == [1, 2, 3]
    waiting = asyncio.create_task(box.take())
    await asyncio.sleep(0)
    box.put(4)
    assert await waiting == [4]


async def test_an_item_that_is_left_does_not_wake() -> None:
    """The reader sleeps on until it is woken, and gets the item then."""
    box: Mailbox[int] = Mailbox()
    waiting = asyncio.create_task(box.take())
    await asyncio.sleep(0)
    box.items.append(1)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    box.wake()
    assert await waiting == [1]


async def test_an_error_comes_after_the_items() -> None:
    """Items put before a failure are not lost; every later reading raises."""
    box: Mailbox[int] = Mailbox()
    box.put(1)
    box.fail(ValueError("over"))
    assert await box.take() == [1]
    for _ in range(2):
        with pytest.raises(ValueError, match="over"):
            await box.take()


async def test_a_reader_that_was_cancelled_is_not_woken() -> None:
    """Putting for a reader that has gone is no error."""
    box: Mailbox[int] = Mailbox()
    waiting = asyncio.create_task(box.take())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    box.put(1)
    assert box.items == [1]
