"""HEAD and OPTIONS of every route. Plain ASGI, so that streams pass unchanged."""

from collections.abc import Iterable

from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send


class HeadAndOptions:
    """Middleware that answers HEAD as GET, whose body uvicorn leaves out, and OPTIONS with the path's methods."""

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes = [route for route in routes if isinstance(route, Route)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, as a GET if it is a HEAD; answers OPTIONS itself."""
        if scope["type"] == "http" and scope["method"] in ("HEAD", "OPTIONS"):
            methods = self._methods(scope)
            if scope["method"] == "OPTIONS" and methods:
                allowed = ", ".join(sorted(methods | {"OPTIONS"}))
                return await Response(status_code=204, headers={"Allow": allowed})(scope, receive, send)
            if scope["method"] == "HEAD" and "GET" in methods:
                # A copy: uvicorn reads the method of its own scope to know that no body may follow.
                scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)

    def _methods(self, scope: Scope) -> set[str]:
        """The methods that the routes of the path take; empty for an unknown path."""
        matching = (route for route in self._routes if route.matches(scope)[0] is not Match.NONE)
        methods = set().union(*(route.methods or () for route in matching))
        return methods | {"HEAD"} if "GET" in methods else methods
