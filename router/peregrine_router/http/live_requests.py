"""Registry of the requests in the server, by which one can be cancelled by its id."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from starlette.requests import Request

from peregrine_router.admission.limits import ConcurrencyLimit
from peregrine_router.admission.rules import REQUEST_TIMEOUT
from peregrine_router.admission.validator import Validator
from peregrine_router.http.errors import spec_of
from peregrine_router.http.request_lifecycle import RequestLifecycle
from peregrine_router.interfaces import EngineClient
from peregrine_router.observability.observer import RequestObservers, RequestRecord
from peregrine_router.request import Overloaded, Tenant

RequestKey = tuple[str, str]
"""(key id, request id). With the id of the API key in it a client cannot cancel another's request."""
CHATS = ("/v1/chat/completions", "/v1/responses")
"""Paths whose operation is `chat` in the words of the GenAI conventions."""


class LiveRequests:
    """Makes every `RequestLifecycle` and keeps it until it is closed."""

    def __init__(
        self, engine: EngineClient, validator: Validator, observers: RequestObservers, max_concurrent_requests: int
    ) -> None:
        self.validator = validator
        self._engine = engine
        self._observers = observers
        self._admission = ConcurrencyLimit(max_concurrent_requests)
        self._live: dict[RequestKey, set[RequestLifecycle]] = {}

    def new(self, request: Request) -> RequestLifecycle:
        """The life cycle of a request that has just arrived. Clients choose ids, so several may share one."""
        key = _key(request, request.state.request_id)
        lifecycle = RequestLifecycle(
            self._engine,
            self.validator,
            self._admission,
            self._observers,
            request.state.request_id,
            request.state.tenant,
            request.headers.get(REQUEST_TIMEOUT),
            partial(self._forget, key),
            "chat" if request.scope["path"] in CHATS else "text_completion",
        )
        self._live.setdefault(key, set()).add(lifecycle)
        return lifecycle

    def acquire(self, request: Request) -> Callable[[], None]:
        """A permit for work that is no generation, and how to release it. Raises Overloaded."""
        tenant = request.state.tenant.name
        self._admission.acquire(1, tenant)
        return partial(self._admission.release, 1, tenant)

    def refuse(self, tenant: Tenant, request_id: str) -> Overloaded | None:
        """The error for a request that has just arrived, reported to the observers; None if there is a permit."""
        error = self._admission.refusal(1, tenant.name)
        if error is not None:
            now = time.monotonic()
            record = RequestRecord(request_id, now, ended_at=now)
            self._observers.arrived(record)
            self._observers.failed(record, error, spec_of(error).label)
        return error

    @asynccontextmanager
    async def opening(self, request: Request) -> AsyncIterator[RequestLifecycle]:
        """A new life cycle, closed if the block raises; otherwise the caller closes it."""
        lifecycle = self.new(request)
        try:
            yield lifecycle
        except BaseException as error:
            await lifecycle.close(error)
            raise

    def cancel(self, request: Request, request_id: str) -> bool:
        """Cancels the live requests of that id made with the API key of `request`, or, if the key has the scope
        `admin`, with any. False if there is none."""
        own = _key(request, request_id)
        keys = [key for key in self._live if key[1] == request_id] if request.state.is_admin else [own]
        found = [lifecycle for key in keys for lifecycle in self._live.get(key, ())]
        for lifecycle in found:
            lifecycle.cancel()
        return bool(found)

    def _forget(self, key: RequestKey, lifecycle: RequestLifecycle) -> None:
        live = self._live.get(key, set())
        live.discard(lifecycle)
        if not live:
            self._live.pop(key, None)


def _key(request: Request, request_id: str) -> RequestKey:
    return request.state.key_id, request_id
