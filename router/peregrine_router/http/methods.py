"""HEAD and OPTIONS of every route. Plain ASGI, so that streams pass unchanged."""

from collections.abc import Iterable, Iterator

from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send


class HeadAndOptions:
    """Middleware that answers HEAD as GET, whose body uvicorn leaves out, and OPTIONS with the path's methods."""

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes = list(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, as a GET if it is a HEAD; answers OPTIONS itself."""
        if scope["type"] == "http" and scope["method"] in ("HEAD", "OPTIONS"):
            methods = methods_of(self._routes, scope)
            if scope["method"] == "OPTIONS" and methods:
                return await Response(status_code=204, headers={"Allow": allowed(methods)})(scope, receive, send)
            if scope["method"] == "HEAD" and "GET" in methods:
                # A copy: uvicorn reads the method of its own scope to know that no body may follow.
                scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


def methods_of(routes: Iterable[BaseRoute], scope: Scope) -> set[str]:
    """The methods that the routes of a request's path take; empty for an unknown path."""
    return set().union(*(route.methods or () for route in matching(routes, scope)))


def matching(routes: Iterable[BaseRoute], scope: Scope) -> Iterator[Route]:
    """The routes of a request's path, whatever its method."""
    return (route for route in routes if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE)


def allowed(methods: set[str]) -> str:
    """The header `Allow` of a path whose routes take these methods: HEAD is wherever GET is, OPTIONS everywhere."""
    return ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))
