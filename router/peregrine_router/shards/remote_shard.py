"""A shard on another machine, as the router sees it."""

import asyncio
from collections.abc import Callable

from peregrine_router.shards.signs_of_life import SignsOfLife


class RemoteShard:
    """A shard that has joined. It ends when its connection does, so nothing of it is left here or there."""

    def __init__(
        self,
        rank: int,
        address: str,
        store_port: int,
        send: Callable[[bytes], bool],
        silence_limit: float,
        fail: Callable[[str], None],
    ) -> None:
        """`address` and `store_port`: see `Join`. `send`: sends it a message. `fail`: called when it is given up."""
        self.rank = rank
        self.address = address
        self.store_port = store_port
        self.send = send
        self.signs = SignsOfLife(rank, silence_limit, fail)
        self._watch = asyncio.create_task(self.signs.watch())

    async def ended(self) -> None:
        """Returns at once: the process is another machine's."""

    def kill(self) -> None:
        """Does nothing: the shard leaves when the router closes the connection."""

    async def close(self) -> None:
        """Ends the watch over it."""
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
