"""The ASGI application."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send, StatelessLifespan

from peregrine_router.admission.fair_threads import FairThreads
from peregrine_router.admission.validator import Validator
from peregrine_router.api.docs_page import docs_page
from peregrine_router.api.health import HealthApi
from peregrine_router.api.openai.answer_schemas import ChatChunk, Completion
from peregrine_router.api.openai.responses.event_schemas import EVENT_TYPES
from peregrine_router.api.openai.responses.routes import ResponsesApi
from peregrine_router.api.openai.responses.store import ResponseStore
from peregrine_router.api.openai.routes import OpenAiApi
from peregrine_router.api.openapi import add_schemas, without_framework_errors
from peregrine_router.api.platforms import PlatformApi
from peregrine_router.api.tgi.routes import TgiApi
from peregrine_router.api.tgi.schemas import StreamResponse
from peregrine_router.api.tokenization import TokenizationApi
from peregrine_router.http.auth import ApiKeys, PublicPaths
from peregrine_router.http.body_budget import BodyBudget
from peregrine_router.http.early_refusal import EarlyRefusals
from peregrine_router.http.errors import install_error_handlers
from peregrine_router.http.key_store import ApiKeyStore
from peregrine_router.http.live_requests import LiveRequests
from peregrine_router.http.methods import HeadAndOptions, matching
from peregrine_router.http.request_ids import REQUEST_ID, RequestIds
from peregrine_router.http.response_headers import HEADERS, ResponseHeaders
from peregrine_router.http.trace_context import TRACE_RESPONSE, TraceContext
from peregrine_router.interfaces import EngineClient, ModelInfo
from peregrine_router.observability.metrics import Metrics
from peregrine_router.observability.observer import RequestObserver, RequestObservers
from peregrine_router.observability.request_log import RequestLog
from peregrine_router.observability.request_metrics import RequestMetrics
from peregrine_router.observability.tracing import RequestTracer
from peregrine_router.settings import Settings
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.protocol import Grammar

OPENAPI_PATHS = ("/openapi.json", "/api-doc/openapi.json")
"""Paths of the OpenAPI document: FastAPI's and TGI's."""
EVENTS = (StreamResponse, Completion, ChatChunk, *EVENT_TYPES)
"""JSON in the events of the streams."""


class Api(Protocol):
    """Routes, and which of them need no API key."""

    @property
    def public_paths(self) -> PublicPaths:
        """(method, path) of the routes that need none."""

    def router(self) -> APIRouter:
        """All routes."""


class Application(FastAPI):
    """FastAPI with a request id on every answer, including those of its outermost layer to unexpected exceptions, and
    with no other errors in its document than the routes describe."""

    prefix = ""
    """--root-path: FastAPI's own `root_path` is deprecated."""

    all_routes: Sequence[BaseRoute] = ()
    """All, with those of the included routers."""

    tracer: RequestTracer | None = None
    """Makes a span of each request; None: traces are off."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Takes the prefix off the request's path where the proxy has left it on: every layer sees the route's path."""
        if scope["type"] == "http" and self.prefix and f"{scope['path']}/".startswith(f"{self.prefix}/"):
            # A prefix such as /v1 may be the beginning of a route, whose path is whole where the proxy strips.
            is_route = any(matching(self.all_routes, scope))
            # huggingface_hub posts to the prefix itself, without a slash.
            scope["path"] = scope["path"] if is_route else scope["path"].removeprefix(self.prefix) or "/"
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, with the schemas of events."""
        if self.openapi_schema is None:
            self.openapi_schema = without_framework_errors(super().openapi())
            add_schemas(self.openapi_schema, EVENTS)
        return self.openapi_schema

    def build_middleware_stack(self) -> ASGIApp:
        """The middlewares from the outermost in."""
        app = super().build_middleware_stack()
        return RequestIds(app if self.tracer is None else TraceContext(app, self.tracer))


def build_app(
    engine: EngineClient,
    tokenizer: Tokenizer,
    settings: Settings,
    info: ModelInfo,
    *,
    chat: Chat | None = None,
    metrics: Metrics | None = None,
    check_grammar: Callable[[Grammar], None] = lambda grammar: None,
    observers: Sequence[RequestObserver] = (),
    tracer: RequestTracer | None = None,
) -> FastAPI:
    """Wires the routes to an engine that is ready. Raises OSError or ValueError for a bad --api-key-file.

    `observers` follow every request besides those of metrics and log; so does `tracer`, if there are traces.
    """
    chat = chat or Chat(tokenizer, None, {})
    metrics = metrics or Metrics(info)
    metrics.watch(engine)
    validator = Validator(tokenizer, settings, info, check_grammar)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        yield
        validator.close()
        body_threads.close()
        await chat.close()

    app = _application(settings, info, lifespan)
    app.state.body_threads = body_threads = FairThreads(1, "body")
    app.state.body_budget = BodyBudget(max(settings.payload_memory, settings.payload_limit))
    app.tracer = tracer
    traced = [tracer] if tracer else []
    all_observers = RequestObservers((RequestMetrics(metrics), metrics.genai, RequestLog(), *observers, *traced))
    live = LiveRequests(engine, validator, all_observers, settings.max_concurrent_requests)
    headers = ResponseHeaders(settings, info)
    tgi = TgiApi(live, metrics, settings, info, headers)
    openai = OpenAiApi(live, chat, settings, info, headers)
    responses = ResponsesApi(openai, ResponseStore(settings.response_store_bytes, settings.response_store_ttl))
    tokenization = TokenizationApi(live, chat, settings)
    health = HealthApi(engine, info, settings.root_path)
    keys = ApiKeyStore(settings.api_key, None if settings.api_key_file is None else Path(settings.api_key_file))
    _add_routes(app, settings, keys, (tgi, openai, responses, tokenization, PlatformApi(tgi, openai), health))
    app.state.early_refusals = EarlyRefusals(live, keys, app.all_routes, app.prefix)
    return app


def _application(settings: Settings, info: ModelInfo, lifespan: StatelessLifespan[FastAPI]) -> Application:
    """An application without routes."""
    app = Application(
        title="Peregrine",
        summary=f"Text generation with {info.model_id}",
        version=version("peregrine"),
        lifespan=lifespan,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        docs_url=None,
        redoc_url=None,
        # A route with a slash too many is a 404: a redirect would make a client send its prompt twice.
        redirect_slashes=False,
    )
    app.prefix = settings.root_path
    install_error_handlers(app)
    return app


def _add_routes(app: Application, settings: Settings, keys: ApiKeyStore, apis: Sequence[Api]) -> None:
    async def openapi() -> dict[str, Any]:
        return app.openapi()

    async def docs() -> Response:
        return docs_page(app.openapi())

    app.add_api_route(OPENAPI_PATHS[1], openapi, include_in_schema=False)
    app.add_api_route("/docs", docs, include_in_schema=False)
    routes = list(app.routes)
    for router in (api.router() for api in apis):
        app.include_router(router)
        routes += router.routes
    app.all_routes = routes
    app.add_middleware(ApiKeys, keys=keys, public_paths=frozenset().union(*(api.public_paths for api in apis)))
    _add_outer_layers(app, settings)


def _add_outer_layers(app: Application, settings: Settings) -> None:
    app.add_middleware(HeadAndOptions, routes=app.all_routes)
    # Added last, hence outermost: browsers send preflight requests without a key.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_allow_origin or ("*",),
        allow_methods=("GET", "POST", "DELETE"),
        # SDKs send headers of their own (x-stainless-*, openai-organization), more with every version.
        allow_headers=("*",),
        expose_headers=(REQUEST_ID, TRACE_RESPONSE, "retry-after", *HEADERS),
    )
