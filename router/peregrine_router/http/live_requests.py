"""The requests that are in the server: let in, found by their id, ended on demand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from starlette.requests import Request

from peregrine_router.admission.limits import ConcurrencyLimit
from peregrine_router.admission.rules import REQUEST_TIMEOUT
from peregrine_router.admission.validator import Validator
from peregrine_router.http.request_lifecycle import RequestLifecycle
from peregrine_router.interfaces import EngineClient
from peregrine_router.observability.metrics import Metrics

Caller = tuple[str, str]
"""Whose request (by API key), and which: a client cannot end another's, whatever id it guesses."""


class LiveRequests:
    """Makes every `RequestLifecycle`, and knows those that have not ended."""

    def __init__(
        self, engine: EngineClient, validator: Validator, metrics: Metrics, max_concurrent_requests: int
    ) -> None:
        self.metrics = metrics
        self.validator = validator
        self._engine = engine
        self._admission = ConcurrencyLimit(max_concurrent_requests)
        self._live: dict[Caller, set[RequestLifecycle]] = {}

    def new(self, request: Request) -> RequestLifecycle:
        """A request that has just arrived. Clients choose ids, so several may share one."""
        caller = _caller(request, request.state.request_id)
        forget = partial(self._forget, caller)
        run = RequestLifecycle(
            self._engine,
            self.validator,
            self._admission,
            self.metrics,
            request.state.request_id,
            request.state.tenant,
            request.headers.get(REQUEST_TIMEOUT),
            forget,
        )
        self._live.setdefault(caller, set()).add(run)
        return run

    @asynccontextmanager
    async def opening(self, request: Request) -> AsyncIterator[RequestLifecycle]:
        """A run that is closed if what is done here fails; else it is the caller's to close."""
        run = self.new(request)
        try:
            yield run
        except BaseException as error:
            await run.close(error)
            raise

    def cancel(self, request: Request, request_id: str) -> bool:
        """Ends the caller's requests of that id, whose readers are told so. False if there is none."""
        found = list(self._live.get(_caller(request, request_id), ()))
        for run in found:
            run.cancel()
        return bool(found)

    def _forget(self, caller: Caller, run: RequestLifecycle) -> None:
        runs = self._live.get(caller, set())
        runs.discard(run)
        if not runs:
            self._live.pop(caller, None)


def _caller(request: Request, request_id: str) -> Caller:
    return request.state.key_id, request_id
