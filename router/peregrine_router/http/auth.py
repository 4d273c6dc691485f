"""API keys: who may call which route, and whose each request is. Plain ASGI, so that streams pass unchanged."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from peregrine_router.admission.fair_threads import TENANT
from peregrine_router.http.errors import error_response
from peregrine_router.http.exceptions import Forbidden, Unauthorized
from peregrine_router.http.key_store import ADMIN, INFER, METRICS, ApiKey, ApiKeyStore
from peregrine_router.request import Tenant

PublicPaths = frozenset[tuple[str, str]]
"""(method, path) of routes that need no API key. Every API declares its own."""
METRICS_PATH = "/metrics"
CANCEL_PREFIX = "/cancel/"


class ApiKeys:
    """Middleware that answers 401 to requests without a valid key, except on public paths, and 403 to those whose key
    lacks the route's scope."""

    def __init__(self, app: ASGIApp, keys: ApiKeyStore, public_paths: PublicPaths) -> None:
        self._app = app
        self._keys = keys
        self._public_paths = public_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sets `state.key_id`, `state.tenant` and `state.is_admin` and passes the request on, or answers 401 or 403."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        scope["state"] |= {"key_id": "", "tenant": Tenant(), "is_admin": False}
        if not self._keys.is_open and (scope["method"], scope["path"]) not in self._public_paths:
            key = bearer(self._keys, Headers(scope=scope).get("authorization", ""))
            if key is None:
                return await error_response(scope["path"], Unauthorized())(scope, receive, send)
            needed = scopes_of(scope["path"])
            if not needed & key.scopes:
                return await error_response(scope["path"], Forbidden(" or ".join(needed)))(scope, receive, send)
            scope["state"] |= {"key_id": key.id, "tenant": key.tenant, "is_admin": ADMIN in key.scopes}
            TENANT.set(key.tenant.name)
        await self._app(scope, receive, send)


def bearer(keys: ApiKeyStore, authorization: str) -> ApiKey | None:
    """The valid key in the value of a header `Authorization`."""
    scheme, _, key = authorization.partition(" ")
    return keys.find(key.strip()) if scheme.lower() == "bearer" else None


def scopes_of(path: str) -> frozenset[str]:
    """The scopes of which a key must have one to call the route."""
    if path == METRICS_PATH:
        return frozenset({METRICS})
    return frozenset({INFER, ADMIN} if path.startswith(CANCEL_PREFIX) else {INFER})
