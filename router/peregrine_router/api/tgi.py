"""TGI's routes: text in, text or a stream of tokens out."""

import asyncio
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from typing import Any, TypeVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from peregrine_router.api.answers import describe_event, describe_generated
from peregrine_router.api.errors import ClientLeft, Unhealthy, json_response
from peregrine_router.api.run import Admission, Run
from peregrine_router.api.schemas import (
    CompatGenerateRequest,
    ErrorResponse,
    GenerateRequest,
    GenerateResponse,
    Info,
    StreamResponse,
)
from peregrine_router.api.security import json_route
from peregrine_router.api.sse import RunResponse
from peregrine_router.generation import Engine, ModelInfo
from peregrine_router.metrics import Metrics
from peregrine_router.settings import Settings
from peregrine_router.validation import Validator

T = TypeVar("T")
ERRORS: dict[int | str, dict[str, Any]] = {
    422: {"model": ErrorResponse, "description": "The request is wrong."},
    424: {"model": ErrorResponse, "description": "The generation failed."},
    429: {"model": ErrorResponse, "description": "Too many requests; try again after `Retry-After` seconds."},
}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"model": StreamResponse, "description": "One event a token: a line `data: ` and this object."},
    **ERRORS,
}


class TgiApi:
    """The handlers. Each makes a `Run` and turns what comes of it into TGI's JSON."""

    def __init__(
        self, engine: Engine, validator: Validator, metrics: Metrics, settings: Settings, info: ModelInfo
    ) -> None:
        self._settings = settings
        self._info = info
        self._engine = engine
        self._metrics = metrics
        admission = Admission(settings.max_concurrent_requests)
        self._new_run: Callable[[], Run] = lambda: Run(engine, validator, admission, metrics)
        device = "cpu" if info.model_device_type == "cpu" else "gpu"
        self._compute_type = settings.compute_type or f"{device}+optimized"

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["Text Generation Inference"], route_class=json_route(self._settings.payload_limit))
        answer: dict[int | str, dict[str, Any]] = {200: {"model": GenerateResponse}, **ERRORS}
        answers: dict[int | str, dict[str, Any]] = {200: {"model": list[GenerateResponse]}, **ERRORS}
        healthy: dict[int | str, dict[str, Any]] = {503: {"model": ErrorResponse}}
        router.add_api_route("/generate", self.generate, methods=["POST"], responses=answer)
        router.add_api_route("/generate_stream", self.generate_stream, methods=["POST"], responses=STREAM)
        router.add_api_route("/", self.compat_generate, methods=["POST"], responses=answers)
        router.add_api_route("/info", self.get_info, responses={200: {"model": Info}})
        for path in ("/health", "/ping", "/"):
            router.add_api_route(path, self.health, responses=healthy, include_in_schema=path == "/health")
        router.add_api_route("/metrics", self.get_metrics)
        return router

    async def generate(self, request: Request, body: GenerateRequest) -> Response:
        """Generates text; answers when it is complete."""
        answer, headers = await self._generate(request, body, has_prompt=False)
        return json_response(200, answer, headers)

    async def generate_stream(self, body: GenerateRequest) -> Response:
        """Generates text; streams it token by token as server-sent events."""
        return await self._stream(body, has_prompt=False)

    async def compat_generate(self, request: Request, body: CompatGenerateRequest) -> Response:
        """Generates text, or streams it if `stream` is true. The text begins with the prompt unless told otherwise."""
        has_prompt = self._info.model_pipeline_tag in (None, "text-generation")
        if body.stream:
            return await self._stream(body, has_prompt)
        answer, headers = await self._generate(request, body, has_prompt)
        return json_response(200, [answer], headers)

    async def get_info(self) -> Response:
        """The model and the limits."""
        settings, info = self._settings, self._info
        answer: Info = {
            "model_id": info.model_id,
            "model_sha": info.model_sha,
            "model_dtype": info.model_dtype,
            "model_device_type": info.model_device_type,
            "model_pipeline_tag": info.model_pipeline_tag,
            "num_shard": info.num_shard,
            "max_concurrent_requests": settings.max_concurrent_requests,
            "max_best_of": settings.max_best_of,
            "max_stop_sequences": settings.max_stop_sequences,
            "max_input_tokens": info.max_input_tokens,
            "max_total_tokens": info.max_total_tokens,
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

    async def _generate(
        self, request: Request, body: GenerateRequest, has_prompt: bool
    ) -> tuple[GenerateResponse, dict[str, str]]:
        async with self._new_run() as run:
            await run.start(body, self._settings.max_best_of, is_stream=False)
            ranked = await unless_client_leaves(request, run.collect())
            answer = describe_generated(ranked, body, prefix=_prefix(body, has_prompt))
            return answer, self._headers(body) | _timing_headers(run, len(ranked[0].tokens))

    async def _stream(self, body: GenerateRequest, has_prompt: bool) -> Response:
        run = self._new_run()
        await run.start(body, self._settings.max_best_of, is_stream=True)
        describe = describe_event(run.requests[0], body, prefix=_prefix(body, has_prompt))
        return RunResponse(run, describe, self._headers(body))

    def _headers(self, body: GenerateRequest) -> dict[str, str]:
        return {"x-compute-type": self._compute_type, "x-compute-characters": str(len(body.inputs))}


def _prefix(body: GenerateRequest, has_prompt: bool) -> str:
    """What the generated text begins with: the prompt if the client wants it, or the route does and nobody objects."""
    wanted = body.parameters.return_full_text if body.parameters else None
    return body.inputs if (has_prompt if wanted is None else wanted) else ""


def _timing_headers(run: Run, num_tokens: int) -> dict[str, str]:
    timings = run.timings
    return {
        "x-compute-time": str(timings.total),
        "x-total-time": _milliseconds(timings.total),
        "x-validation-time": _milliseconds(timings.validation),
        "x-queue-time": _milliseconds(timings.queue),
        "x-inference-time": _milliseconds(timings.inference),
        "x-time-per-token": _milliseconds(timings.inference / max(num_tokens, 1)),
        "x-prompt-tokens": str(len(run.requests[0].prompt_ids)),
        "x-generated-tokens": str(num_tokens),
    }


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))


async def unless_client_leaves(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; if the client closes the connection first, cancels it and raises ClientLeft."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
