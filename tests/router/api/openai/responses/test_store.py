"""The store of responses: bounds, shares, expiry, and the index of items."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from peregrine_router.api.openai.responses.answer_schemas import Item, ResponseObject
from peregrine_router.api.openai.responses.store import MIN_BYTES, ResponseStore


def item(id: str, text: str = "") -> Item:
    return {
        "id": id,
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": text}],
    }


def response(id: str, *output: Item) -> ResponseObject:
    given: dict[str, Any] = {"id": id, "output": output}
    return cast(ResponseObject, given)


async def until(condition: Callable[[], bool]) -> None:
    """Fails if it does not come true within 5 s."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


async def test_a_response_is_its_keys() -> None:
    """No other key finds or deletes it."""
    store = ResponseStore(10 * MIN_BYTES, 60)
    store.put("a", response("1"), [])
    assert store.find("b", "1") is None
    assert not store.delete("b", "1")
    assert store.delete("a", "1")
    assert store.find("a", "1") is None
    assert store.size == 0


async def test_the_oldest_makes_room() -> None:
    """Beyond the limit a key loses its oldest responses; small ones are bounded in number."""
    store = ResponseStore(3 * MIN_BYTES, 60)
    for number in range(5):
        store.put("a", response(str(number)), [])
    assert [store.find("a", str(number)) is not None for number in range(5)] == [False, False, True, True, True]


async def test_a_flood_pushes_out_its_own() -> None:
    """The key that takes the most of the room loses: what another keeps stays."""
    store = ResponseStore(4 * MIN_BYTES, 60)
    store.put("quiet", response("kept"), [])
    for number in range(100):
        store.put("flood", response(str(number)), [item("x", "y" * 5000)])
    assert store.find("quiet", "kept") is not None
    assert store.size <= 4 * MIN_BYTES


async def test_what_is_too_large_is_not_kept() -> None:
    """A response beyond the limit leaves the store empty, within its bounds."""
    store = ResponseStore(2 * MIN_BYTES, 60)
    store.put("a", response("1"), [item("x", "y" * 3 * MIN_BYTES)])
    assert store.find("a", "1") is None
    assert store.size == 0


async def test_responses_expire() -> None:
    """After their time they are gone from memory, whether or not anybody asks; later ones stay for theirs."""
    store = ResponseStore(10 * MIN_BYTES, 0.4)
    store.put("a", response("1"), [])
    await asyncio.sleep(0.3)
    store.put("b", response("2"), [])
    await until(lambda: store.size < 2 * MIN_BYTES)
    assert store.find("b", "2") is not None
    await until(lambda: store.size == 0)


async def test_a_conversation_goes_on() -> None:
    """It is the items before a response and those of its output."""
    store = ResponseStore(10 * MIN_BYTES, 60)
    store.put("a", response("1", item("out")), [item("in")])
    stored = store.find("a", "1")
    assert stored is not None
    assert stored.input == [item("in")]
    assert stored.conversation == [item("in"), item("out")]


async def test_items_are_found_while_a_response_has_them() -> None:
    """An item of two responses is found until both are gone, and by its key only."""
    store = ResponseStore(10 * MIN_BYTES, 60)
    store.put("a", response("1", item("x", "first")), [])
    store.put("a", response("2"), [item("x", "first")])
    for id in ("2", "1"):
        assert store.find_items("a", ["x", "nothing"])["x"] == item("x", "first")
        assert "x" not in store.find_items("b", ["x"])
        store.delete("a", id)
    assert "x" not in store.find_items("a", ["x"])


@pytest.mark.parametrize(("max_bytes", "is_on"), [(0, False), (1, True)])
def test_it_can_be_off(max_bytes: int, is_on: bool) -> None:
    """A limit of 0 keeps nothing."""
    assert ResponseStore(max_bytes, 60).is_on == is_on
