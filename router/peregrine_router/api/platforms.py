"""The routes of hosting platforms: Amazon SageMaker's /invocations, Google Vertex AI's /vertex."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from peregrine_router.admission.api_limits import api_limits
from peregrine_router.admission.fields import Objects
from peregrine_router.admission.validator import PromptJob, tgi_prompt_job
from peregrine_router.api.openai.answer_schemas import ChatCompletion, Completion
from peregrine_router.api.openai.routes import OpenAiApi
from peregrine_router.api.openai.schemas import ChatRequest, CompletionRequest
from peregrine_router.api.openai.tools import plan_tools
from peregrine_router.api.openapi import ERRORS, INVOCATION_EVENTS, TIMEOUT_HEADER
from peregrine_router.api.tgi.routes import TgiApi
from peregrine_router.api.tgi.schemas import CompatGenerateRequest, GenerateRequest, GenerateResponse
from peregrine_router.http.auth import PublicPaths
from peregrine_router.http.disconnect import unless_client_leaves
from peregrine_router.http.errors import json_response
from peregrine_router.http.exceptions import BatchTooLarge
from peregrine_router.http.request_body import json_route
from peregrine_router.http.response_headers import warnings

Invocation = Annotated[
    CompatGenerateRequest | ChatRequest | CompletionRequest,
    Field(union_mode="left_to_right", description="Request body of POST /, /v1/chat/completions or /v1/completions."),
]
Instance = Annotated[GenerateRequest | ChatRequest, Field(union_mode="left_to_right")]


class VertexRequest(BaseModel):
    """A batch of prompts or chats."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    instances: Objects[Instance] = Field(min_length=1, examples=[[{"inputs": "My name is Olivier and I"}]])


class VertexResponse(TypedDict):
    """The generated text of each instance."""

    predictions: list[str]


@dataclass(frozen=True, slots=True)
class PlatformApi:
    """Passes requests on to the handlers of the other routes."""

    public_paths: ClassVar[PublicPaths] = frozenset()
    tgi: TgiApi
    openai: OpenAiApi

    def router(self) -> APIRouter:
        """All routes."""
        limit = self.openai.settings.payload_limit
        router = APIRouter(tags=["Platforms"], route_class=json_route(limit))
        answer = list[GenerateResponse] | ChatCompletion | Completion
        answers = {200: {"model": answer, "content": INVOCATION_EVENTS}, **ERRORS}
        predictions = {200: {"model": VertexResponse}, **ERRORS}
        for path, handler, responses in (
            ("/invocations", self.invocations, answers),
            ("/vertex", self.vertex, predictions),
        ):
            router.add_api_route(path, handler, methods=["POST"], responses=responses, openapi_extra=TIMEOUT_HEADER)
        return router

    async def invocations(self, request: Request, body: Invocation) -> Response:
        """Answers like the route with the same body: `inputs` /, `messages` chat, `prompt` completions."""
        if isinstance(body, CompatGenerateRequest):
            return await self.tgi.compat_generate(request, body)
        if isinstance(body, ChatRequest):
            return await self.openai.chat_completions(request, body)
        return await self.openai.completions(request, body)

    async def vertex(self, request: Request, body: VertexRequest) -> Response:
        """Generates text for every instance; answers when all are complete."""
        limit = api_limits(self.openai.settings, is_tgi=True).max_client_batch_size
        async with self.openai.live.new(request) as lifecycle:
            if len(body.instances) > limit:
                raise BatchTooLarge(limit)
            await unless_client_leaves(request, lifecycle.start([self._job(instance) for instance in body.instances]))
            groups = await unless_client_leaves(request, lifecycle.collect())
            best = [max(group, key=lambda output: output.mean_logprob) for group in groups]
            predictions = [output.end.generated_text for output in best]
            return json_response(200, {"predictions": predictions}, warnings(lifecycle))

    def _job(self, instance: GenerateRequest | ChatRequest) -> PromptJob:
        if isinstance(instance, GenerateRequest):
            return tgi_prompt_job(instance.inputs, instance.parameters)
        return self.openai.job(instance, plan_tools(instance, self.openai.settings.max_tools))
