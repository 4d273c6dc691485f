"""The store of responses: in memory, each found by the API key that made it only, bounded and expiring."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from peregrine_router.api.openai.responses.answer_schemas import Item, ResponseObject

MIN_BYTES = 4096
"""Bytes that a response counts for at least, so that their number is bounded too: 16,384 in 64 MiB."""
BYTES_PER_ITEM = 512
"""Bytes that an item counts for besides its JSON: its id, and its place in the index."""


class StoredResponse:
    """A response, and the conversation that it was made of, as JSON."""

    __slots__ = ("_input", "expires_at", "id", "item_ids", "json", "size")

    def __init__(self, response: ResponseObject, input: Sequence[Item], expires_at: float) -> None:
        """`input`: all items before the response's own. `expires_at`: of `time.monotonic()`."""
        self.id = response["id"]
        self.json = msgspec.json.encode(response)
        self.item_ids = {item["id"] for item in (*input, *response["output"])}
        self.expires_at = expires_at
        self._input = msgspec.json.encode(input)
        self.size = max(len(self.json) + len(self._input) + BYTES_PER_ITEM * len(self.item_ids), MIN_BYTES)
        """Bytes that it counts for."""

    @property
    def input(self) -> list[Item]:
        """The items before the response's own."""
        items: list[Item] = msgspec.json.decode(self._input)
        return items

    @property
    def conversation(self) -> list[Item]:
        """The items that the next response continues."""
        response: ResponseObject = msgspec.json.decode(self.json)
        return [*self.input, *response["output"]]


@dataclass(slots=True)
class _Shelf:
    """The responses of one API key."""

    responses: dict[str, StoredResponse] = field(default_factory=dict)
    """By id, oldest first."""
    owners: dict[str, list[StoredResponse]] = field(default_factory=dict)
    """Id of an item -> responses that hold it, oldest first."""
    size: int = 0

    @property
    def oldest(self) -> StoredResponse:
        """The response that expires first."""
        return next(iter(self.responses.values()))

    def add(self, stored: StoredResponse) -> None:
        self.responses[stored.id] = stored
        self.size += stored.size
        for id in stored.item_ids:
            self.owners.setdefault(id, []).append(stored)

    def remove(self, stored: StoredResponse) -> None:
        del self.responses[stored.id]
        self.size -= stored.size
        for id in stored.item_ids:
            self.owners[id].remove(stored)
            if not self.owners[id]:
                del self.owners[id]


class ResponseStore:
    """Responses by (key id, response id). Where there is no room, the API key that takes the most of it loses its
    oldest response: none can push out what others keep."""

    def __init__(self, max_bytes: int, ttl: float) -> None:
        """`ttl`: seconds after which a response is forgotten. `max_bytes` of 0: nothing is kept."""
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._shelves: dict[str, _Shelf] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._max_bytes > 0

    @property
    def size(self) -> int:
        """Bytes of all responses."""
        return sum(shelf.size for shelf in self._shelves.values())

    def put(self, key_id: str, response: ResponseObject, input: Sequence[Item]) -> None:
        """Keeps a response; `input` is the conversation before it. Needs a running event loop."""
        stored = StoredResponse(response, input, time.monotonic() + self._ttl)
        self._shelves.setdefault(key_id, _Shelf()).add(stored)
        while self.size > self._max_bytes:
            largest = max(self._shelves, key=lambda key_id: self._shelves[key_id].size)
            self._remove(largest, self._shelves[largest].oldest)
        self._schedule()

    def find(self, key_id: str, id: str) -> StoredResponse | None:
        """The response of that id, if the key made it."""
        shelf = self._shelves.get(key_id)
        return shelf.responses.get(id) if shelf else None

    def delete(self, key_id: str, id: str) -> bool:
        """Forgets a response. False if there is none."""
        stored = self.find(key_id, id)
        if stored is not None:
            self._remove(key_id, stored)
        return stored is not None

    def find_items(self, key_id: str, ids: Iterable[str]) -> dict[str, Item]:
        """The items of the key's responses with one of `ids`, by id. Reads each response once."""
        owners = self._shelves.get(key_id, _Shelf()).owners
        latest = {id: owners[id][-1] for id in ids if id in owners}
        items = {stored: {item["id"]: item for item in stored.conversation} for stored in set(latest.values())}
        return {id: items[stored][id] for id, stored in latest.items()}

    def _remove(self, key_id: str, stored: StoredResponse) -> None:
        shelf = self._shelves[key_id]
        shelf.remove(stored)
        if not shelf.responses:
            del self._shelves[key_id]

    def _schedule(self) -> None:
        """Sets the timer to the end of the oldest response, unless it is set."""
        if self._timer is None and self._shelves:
            seconds = min(shelf.oldest.expires_at for shelf in self._shelves.values()) - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(max(seconds, 0.0), self._expire)

    def _expire(self) -> None:
        """Forgets what has expired, even if nobody asks again."""
        self._timer, now = None, time.monotonic()
        for key_id, shelf in list(self._shelves.items()):
            while shelf.responses and shelf.oldest.expires_at <= now:
                self._remove(key_id, shelf.oldest)
        self._schedule()
