"""Work whose client may leave."""

import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from peregrine_router.http.disconnect import unless_client_leaves, until_first_ends
from peregrine_router.http.exceptions import ClientLeft


def request_from(*messages: str) -> Request:
    """A request whose client sends these messages and then nothing."""
    rest = list(messages)

    async def receive() -> Message:
        if not rest:
            await asyncio.sleep(3600)
        return {"type": rest.pop(0)}

    return Request({"type": "http"}, receive)


async def test_the_result_of_work_whose_client_waits() -> None:
    """A message that is no disconnect, such as an empty body, ends nothing."""

    async def work() -> int:
        await asyncio.sleep(0.01)
        return 7

    assert await unless_client_leaves(request_from("http.request"), work()) == 7


async def test_work_ends_when_its_client_leaves() -> None:
    """The work is cancelled, and has ended when ClientLeft is raised."""
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("work")

    with pytest.raises(ClientLeft):
        await unless_client_leaves(request_from("http.request", "http.disconnect"), work())
    assert ended == ["work"]


async def test_an_error_of_the_work_is_raised() -> None:
    """The client is still there and is to be told."""

    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await unless_client_leaves(request_from(), work())


async def test_the_first_work_to_end_ends_the_others() -> None:
    """The others are cancelled, and have ended when the call returns."""
    ended = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    await until_first_ends(endless(), asyncio.sleep(0), endless())
    assert ended == [True, True]


async def test_an_error_of_the_first_work_to_end_is_raised() -> None:
    """And the others are cancelled all the same."""

    async def broken() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await until_first_ends(broken(), asyncio.sleep(3600))
    assert asyncio.all_tasks() == {asyncio.current_task()}
