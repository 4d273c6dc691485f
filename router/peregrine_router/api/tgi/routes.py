"""TGI's routes: text in, text or a stream of tokens out; tokens; what the server is."""

from importlib.metadata import version
from itertools import accumulate
from typing import Any, ClassVar

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from peregrine_router.admission.rules import check, text_rules
from peregrine_router.admission.validator import tgi_prompt_job
from peregrine_router.api.openapi import ERRORS, TGI_EVENTS, TIMEOUT_HEADER, UNAUTHORIZED, errors
from peregrine_router.api.tgi.responses import StreamAnswer, describe_generated
from peregrine_router.api.tgi.schemas import (
    CancelResponse,
    CompatGenerateRequest,
    GenerateRequest,
    GenerateResponse,
    Info,
    SimpleToken,
    StreamResponse,
)
from peregrine_router.http.auth import PublicPaths
from peregrine_router.http.disconnect import unless_client_leaves
from peregrine_router.http.errors import ErrorResponse, Unhealthy, json_response
from peregrine_router.http.live_requests import LiveRequests
from peregrine_router.http.request_body import json_route
from peregrine_router.http.response_headers import AnswerHeaders
from peregrine_router.http.sse import EventStreamResponse
from peregrine_router.interfaces import EngineClient, ModelInfo
from peregrine_router.observability.metrics import Metrics
from peregrine_router.settings import Settings

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "model": StreamResponse,
        "content": TGI_EVENTS,
        "description": "One event a token: `data: `, this object.",
    },
    **ERRORS,
}


class TgiApi:
    """The handlers. Each makes a `RequestLifecycle` and turns what comes of it into TGI's JSON."""

    public_paths: ClassVar[PublicPaths] = frozenset(
        {("GET", "/health"), ("GET", "/ping"), ("GET", "/"), ("HEAD", "/health"), ("HEAD", "/ping")}
    )
    """Health checks: orchestrators hold no key."""

    def __init__(
        self,
        engine: EngineClient,
        runs: LiveRequests,
        metrics: Metrics,
        settings: Settings,
        info: ModelInfo,
        headers: AnswerHeaders,
    ) -> None:
        self._engine = engine
        self._runs = runs
        self._metrics = metrics
        self._settings = settings
        self._info = info
        self._headers = headers

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["Text Generation Inference"], route_class=json_route(self._settings.payload_limit))
        answers: dict[str, tuple[Any, dict[int | str, dict[str, Any]]]] = {
            "/generate": (self.generate, {200: {"model": GenerateResponse}, **ERRORS}),
            "/generate_stream": (self.generate_stream, STREAM),
            "/": (self.compat_generate, {200: {"model": list[GenerateResponse], "content": TGI_EVENTS}, **ERRORS}),
        }
        for path, (handler, responses) in answers.items():
            router.add_api_route(path, handler, methods=["POST"], responses=responses, openapi_extra=TIMEOUT_HEADER)
        tokenized: dict[int | str, dict[str, Any]] = {200: {"model": list[SimpleToken]}, **ERRORS}
        router.add_api_route("/tokenize", self.tokenize, methods=["POST"], responses=tokenized)
        cancelled: dict[int | str, dict[str, Any]] = {200: {"model": CancelResponse}, **errors(401, 404)}
        router.add_api_route("/cancel/{id}", self.cancel, methods=["POST"], responses=cancelled)
        router.add_api_route("/info", self.get_info, responses={200: {"model": Info}, **UNAUTHORIZED})
        for path in ("/health", "/ping", "/"):
            healthy: dict[int | str, dict[str, Any]] = {
                200: {"description": "A token can be made now."},
                503: {"model": ErrorResponse, "description": "No token can be made now."},
            }
            router.add_api_route(path, self.health, response_class=Response, responses=healthy)
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
        """Generates text, or streams it if `stream` is true. The text begins with the prompt unless told otherwise."""
        if body.stream:
            return await self._stream(request, body, has_prompt=True)
        answer, headers = await self.answer(request, body, has_prompt=True)
        return json_response(200, [answer], headers)

    async def tokenize(self, body: GenerateRequest) -> Response:
        """The prompt's tokens; `start` and `stop` count bytes of its UTF-8."""
        check(text_rules(body.inputs, "inputs"))
        validator, text = self._runs.validator, body.inputs
        tokens = await validator.on_thread(lambda: token_spans(text, validator.tokenizer.encode_spans(text)))
        return json_response(200, tokens)

    async def cancel(self, request: Request, id: str) -> Response:
        """Ends the request whose `x-request-id` is `id`; its client gets a 499, or a last event."""
        if not self._runs.cancel(request, id):
            raise HTTPException(404, f"No request {id[:128]!r} is running")
        return json_response(200, {"id": id, "cancelled": True})

    async def get_info(self) -> Response:
        """The model and the limits."""
        settings, info = self._settings, self._info
        answer: Info = {
            "model_id": info.model_id,
            "model_sha": info.model_sha,
            "model_dtype": info.model_dtype,
            "model_device_type": info.model_device_type,
            "model_pipeline_tag": None,
            "num_shard": info.num_shard,
            "max_concurrent_requests": settings.max_concurrent_requests,
            "max_best_of": settings.max_best_of,
            "max_stop_sequences": settings.max_stop_sequences,
            "max_input_tokens": info.max_input_tokens,
            "max_total_tokens": info.max_total_tokens,
            "max_client_batch_size": settings.max_client_batch_size,
            "max_batch_total_tokens": info.max_batch_total_tokens,
            "max_batch_size": settings.max_batch_size,
            "max_top_n_tokens": settings.max_top_n_tokens,
            "validation_workers": settings.validation_workers,
            "router": "peregrine",
            "version": version("peregrine"),
            "sha": None,
            "docker_label": None,
        }
        return json_response(200, answer)

    async def health(self) -> Response:
        """200 if a token can be made now, else 503."""
        if not self._engine.is_healthy:
            raise Unhealthy
        return Response()

    async def get_metrics(self) -> Response:
        """Prometheus metrics."""
        return Response(self._metrics.render(), media_type="text/plain; version=0.0.4")

    async def answer(
        self, request: Request, body: GenerateRequest, has_prompt: bool
    ) -> tuple[GenerateResponse, dict[str, str]]:
        """What /generate answers, and its headers."""
        async with self._runs.new(request) as run:
            await run.start([tgi_prompt_job(body.inputs, body.parameters)])
            (generated,) = await unless_client_leaves(request, run.collect())
            ranked = sorted(generated, key=lambda each: each.mean_logprob, reverse=True)
            answer = describe_generated(ranked, body, prefix=_prefix(body, has_prompt))
            return answer, self._headers.whole(run, ranked[0].end.generated_tokens)

    async def _stream(self, request: Request, body: GenerateRequest, has_prompt: bool) -> Response:
        async with self._runs.opening(request) as run:
            await run.start([tgi_prompt_job(body.inputs, body.parameters, is_stream=True)])
            describe = StreamAnswer(run.requests[0], body, prefix=_prefix(body, has_prompt))
            return EventStreamResponse(run, describe, self._headers.stream(run), self._settings.slow_client_timeout)


def token_spans(text: str, spans: list[tuple[int, int, int]]) -> list[SimpleToken]:
    """The tokens of a text and where they are. A character split over tokens is the text of each of them."""
    at = [0, *accumulate(len(character.encode()) for character in text)]
    return [{"id": id, "text": text[start:stop], "start": at[start], "stop": at[stop]} for id, start, stop in spans]


def _prefix(body: GenerateRequest, has_prompt: bool) -> str:
    """What the generated text begins with: the prompt if the client wants it, or the route does and nobody objects."""
    wanted = body.parameters.return_full_text if body.parameters else None
    return body.inputs if (has_prompt if wanted is None else wanted) else ""
