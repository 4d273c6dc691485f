"""Registry of the requests in the server, by which one can be cancelled by its id."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from starlette.requests import Request

from peregrine_router.admission.limits import ConcurrencyLimit
from peregrine_router.admission.rules import REQUEST_TIMEOUT
from peregrine_router.admission.validator import Validator
from peregrine_router.http.request_lifecycle import RequestLifecycle
from peregrine_router.interfaces import EngineClient
from peregrine_router.observability.observer import RequestObservers

RequestKey = tuple[str, str]
"""(key id, request id). With the id of the API key in it a client cannot cancel another's request."""


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
        )
        self._live.setdefault(key, set()).add(lifecycle)
        return lifecycle

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
        """Cancels the live requests of that id made with the API key of `request`. False if there is none."""
        found = list(self._live.get(_key(request, request_id), ()))
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
