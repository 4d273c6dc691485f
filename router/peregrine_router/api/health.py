"""Health checks, and what a browser asks of any server: a page at `/`, and an icon."""

from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from peregrine_router.http.auth import PublicPaths
from peregrine_router.http.errors import ErrorResponse
from peregrine_router.http.exceptions import Unhealthy
from peregrine_router.interfaces import EngineClient, ModelInfo

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Peregrine</title></head>
<body><h1>{model}</h1>
<p>This server generates text. Its routes are described in the <a href="{root}/docs">API documentation</a>.</p>
</body></html>
"""
ICON_HEADERS = {"Cache-Control": "public, max-age=86400"}
HEALTHY: dict[int | str, dict[str, Any]] = {
    200: {"description": "The server can generate tokens."},
    503: {"model": ErrorResponse, "description": "The server cannot generate tokens."},
}


@dataclass(frozen=True, slots=True)
class HealthApi:
    """The routes that load balancers, monitors and browsers ask for without being told of them."""

    public_paths: ClassVar[PublicPaths] = frozenset(
        {("GET", path) for path in ("/health", "/ping", "/livez", "/", "/favicon.ico")}
    )
    """Orchestrators and browsers hold no key."""
    engine: EngineClient
    info: ModelInfo
    root_path: str = ""

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter(tags=["Health"])
        for path in ("/health", "/ping"):
            router.add_api_route(path, self.health, response_class=Response, responses=HEALTHY)
        router.add_api_route("/livez", self.live, include_in_schema=False)
        router.add_api_route("/", self.root, response_class=Response, responses=HEALTHY)
        router.add_api_route("/favicon.ico", self.icon, include_in_schema=False)
        return router

    async def health(self) -> Response:
        """200 if the server can generate tokens, else 503."""
        if not self.engine.is_healthy:
            raise Unhealthy
        return Response()

    async def live(self) -> Response:
        """200 whenever the event loop answers, tokens or none: what only a restart would mend is not the shards'."""
        return Response()

    async def root(self, request: Request) -> Response:
        """200 if the server can generate tokens, else 503. A browser gets a page that leads to the documentation."""
        response = await self.health()
        # Not a redirect to /docs, which wants a key: monitors that accept HTML would take the 401 for an outage.
        if "text/html" in request.headers.get("accept", ""):
            page = PAGE.format(model=escape(self.info.model_id), root=escape(self.root_path))
            response = HTMLResponse(page)
        response.headers["Vary"] = "Accept"
        return response

    async def icon(self) -> Response:
        """No icon, and that for a day: a browser asks for one beside every page."""
        return Response(status_code=204, headers=ICON_HEADERS)
