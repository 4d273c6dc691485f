"""TGI's routes: generation, cancellation, information and metrics."""

from functools import partial
from importlib.metadata import version
from typing import Any, ClassVar

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from peregrine_router.admission.api_limits import api_limits
from peregrine_router.admission.validator import tgi_prompt_job
from peregrine_router.api.openapi import ERRORS, TGI_EVENTS, TIMEOUT_HEADER, UNAUTHORIZED, errors
from peregrine_router.api.tgi.responses import StreamAnswer, format_answer
from peregrine_router.api.tgi.schemas import (
    CancelResponse,
    CompatGenerateRequest,
    GenerateRequest,
    GenerateResponse,
    Info,
    StreamResponse,
)
from peregrine_router.http.auth import PublicPaths
from peregrine_router.http.disconnect import unless_client_leaves
from peregrine_router.http.errors import json_response
from peregrine_router.http.live_requests import LiveRequests
from peregrine_router.http.request_body import json_route
from peregrine_router.http.response_headers import ResponseHeaders
from peregrine_router.http.sse import EventStreamResponse
from peregrine_router.interfaces import ModelInfo
from peregrine_router.observability.exposition import OPENMETRICS, TEXT, prefers_openmetrics
from peregrine_router.observability.metrics import Metrics
from peregrine_router.observability.scrape_cache import ScrapeCache
from peregrine_router.settings import Settings

TGI_VERSION = "3.3.6"
"""The release of TGI whose routes these are. Clients parse it: LlamaIndex refuses tools below 2.0.1."""
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "model": StreamResponse,
        "content": TGI_EVENTS,
        "description": "One event per token: `data: ` followed by this object.",
    },
    **ERRORS,
}


class TgiApi:
    """The handlers of TGI's routes. Each starts a `RequestLifecycle` and formats its tokens as TGI's JSON."""

    public_paths: ClassVar[PublicPaths] = frozenset()

    def __init__(
        self,
        live: LiveRequests,
        metrics: Metrics,
        settings: Settings,
        info: ModelInfo,
        headers: ResponseHeaders,
    ) -> None:
        self._live = live
        self._scrapes = {
            is_openmetrics: ScrapeCache(partial(metrics.render, is_openmetrics=is_openmetrics))
            for is_openmetrics in (False, True)
        }
        self._settings = settings
        self._info = info
        self._headers = headers

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter(tags=["Text Generation Inference"], route_class=json_route(self._settings.payload_limit))
        answers: dict[str, tuple[Any, dict[int | str, dict[str, Any]]]] = {
            "/generate": (self.generate, {200: {"model": GenerateResponse}, **ERRORS}),
            "/generate_stream": (self.generate_stream, STREAM),
            "/": (self.compat_generate, {200: {"model": list[GenerateResponse], "content": TGI_EVENTS}, **ERRORS}),
        }
        for path, (handler, responses) in answers.items():
            router.add_api_route(path, handler, methods=["POST"], responses=responses, openapi_extra=TIMEOUT_HEADER)
        cancelled: dict[int | str, dict[str, Any]] = {200: {"model": CancelResponse}, **errors(401, 403, 404)}
        router.add_api_route("/cancel/{id}", self.cancel, methods=["POST"], responses=cancelled)
        router.add_api_route("/info", self.get_info, responses={200: {"model": Info}, **UNAUTHORIZED})
        router.add_api_route("/metrics", self.get_metrics, response_class=PlainTextResponse, responses=UNAUTHORIZED)
        return router

    async def generate(self, request: Request, body: GenerateRequest) -> Response:
        """Generates text; answers when it is complete."""
        answer, headers = await self.answer(request, body, has_prompt=False)
        return json_response(200, answer, headers)

    async def generate_stream(self, request: Request, body: GenerateRequest) -> Response:
        """Generates text; streams it token by token as server-sent events."""
        return await self._stream(request, body, has_prompt=False)

    async def compat_generate(self, request: Request, body: CompatGenerateRequest) -> Response:
        """Generates text, or streams it if `stream` is true. The text includes the prompt by default."""
        if body.stream:
            return await self._stream(request, body, has_prompt=True)
        answer, headers = await self.answer(request, body, has_prompt=True)
        return json_response(200, [answer], headers)

    async def cancel(self, request: Request, id: str) -> Response:
        """Cancels the request whose `x-request-id` is `id`. Its client receives a 499, or an error event."""
        if not self._live.cancel(request, id):
            raise HTTPException(404, f"No request {id[:128]!r} is running")
        return json_response(200, {"id": id, "cancelled": True})

    async def get_info(self) -> Response:
        """The model and the server's limits."""
        settings, info = self._settings, self._info
        limits = api_limits(settings, is_tgi=True)
        answer: Info = {
            "model_id": info.model_id,
            "model_sha": info.model_sha,
            "model_dtype": info.model_dtype,
            "model_device_type": info.model_device_type,
            "model_pipeline_tag": None,
            "num_shard": info.num_shard,
            "max_concurrent_requests": settings.max_concurrent_requests,
            "max_best_of": limits.max_best_of,
            "max_stop_sequences": settings.max_stop_sequences,
            "max_input_tokens": info.max_input_tokens,
            "max_total_tokens": info.max_total_tokens,
            "max_client_batch_size": limits.max_client_batch_size,
            "max_batch_total_tokens": info.max_batch_total_tokens,
            "max_batch_size": settings.max_batch_size,
            "max_top_n_tokens": limits.max_top_n_tokens,
            "validation_workers": settings.validation_workers,
            "router": "peregrine",
            "version": TGI_VERSION,
            "peregrine_version": version("peregrine"),
            "sha": None,
            "docker_label": None,
        }
        return json_response(200, answer)

    async def get_metrics(self, request: Request) -> Response:
        """Prometheus metrics: plain text, or OpenMetrics, which has exemplars, if `Accept` prefers it."""
        is_openmetrics = prefers_openmetrics(request.headers.get("accept", ""))
        text = self._scrapes[is_openmetrics].text()
        return Response(text, media_type=OPENMETRICS if is_openmetrics else TEXT)

    async def answer(
        self, request: Request, body: GenerateRequest, has_prompt: bool
    ) -> tuple[GenerateResponse, dict[str, str]]:
        """Generates the whole answer of a TGI route, and its headers."""
        async with self._live.new(request) as lifecycle:
            await unless_client_leaves(request, lifecycle.start([tgi_prompt_job(body.inputs, body.parameters)]))
            (outputs,) = await unless_client_leaves(request, lifecycle.collect())
            ranked = sorted(outputs, key=lambda output: output.mean_logprob, reverse=True)
            answer = format_answer(ranked, body, prefix=_prefix(body, has_prompt))
            return answer, self._headers.whole(lifecycle, ranked[0].end.generated_tokens)

    async def _stream(self, request: Request, body: GenerateRequest, has_prompt: bool) -> Response:
        async with self._live.opening(request) as lifecycle:
            await unless_client_leaves(
                request, lifecycle.start([tgi_prompt_job(body.inputs, body.parameters, is_stream=True)])
            )
            answer = StreamAnswer(lifecycle.requests[0], body, prefix=_prefix(body, has_prompt))
            headers = self._headers.stream(lifecycle)
            return EventStreamResponse(lifecycle, answer, headers, self._settings.slow_client_timeout)


def _prefix(body: GenerateRequest, has_prompt: bool) -> str:
    """The prompt if `return_full_text` asks for it in front of the text; `has_prompt` is the route's default."""
    full_text = body.parameters.return_full_text if body.parameters else None
    return body.inputs if (has_prompt if full_text is None else full_text) else ""
