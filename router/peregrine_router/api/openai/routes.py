"""OpenAI's routes: completions, chat completions and models; and TGI's /chat_tokenize, which takes a chat."""

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from peregrine_router.admission.prompts import Prompt, RenderedPrompt
from peregrine_router.admission.validator import PromptJob
from peregrine_router.api.openai.answer_schemas import ChatCompletion, Completion, Model, ModelList
from peregrine_router.api.openai.chat_completions import ChatAnswer
from peregrine_router.api.openai.completions import CompletionAnswer, best_sequences, completion_jobs, without_sampled
from peregrine_router.api.openai.function_calls import FunctionChatAnswer
from peregrine_router.api.openai.messages import render_chat
from peregrine_router.api.openai.parameters import generate_parameters
from peregrine_router.api.openai.schemas import ChatRequest, CompletionRequest
from peregrine_router.api.openai.tools import ToolPlan, plan_tools
from peregrine_router.api.openapi import (
    CHAT_EVENTS,
    COMPLETION_EVENTS,
    ERRORS,
    OPENAI_ERRORS,
    TIMEOUT_HEADER,
    Responses,
    errors,
)
from peregrine_router.api.tgi.schemas import ChatTokenizeResponse
from peregrine_router.api.token_json import json_object, json_text, span_list
from peregrine_router.http.auth import PublicPaths
from peregrine_router.http.disconnect import unless_client_leaves
from peregrine_router.http.errors import OpenAiErrorResponse, json_response
from peregrine_router.http.exceptions import UnknownModel
from peregrine_router.http.json_stream import Pieces, answer_work
from peregrine_router.http.live_requests import LiveRequests
from peregrine_router.http.request_body import json_route
from peregrine_router.http.request_lifecycle import RequestLifecycle
from peregrine_router.http.response_headers import ResponseHeaders
from peregrine_router.http.sse import EventFormatter, EventStreamResponse
from peregrine_router.interfaces import ModelInfo
from peregrine_router.settings import Settings
from peregrine_router.text.chat_template import Chat


@dataclass(frozen=True, slots=True)
class OpenAiApi:
    """The handlers of OpenAI's routes. Each starts a `RequestLifecycle` and formats its tokens as OpenAI's JSON."""

    public_paths: ClassVar[PublicPaths] = frozenset()
    live: LiveRequests
    chat: Chat
    settings: Settings
    info: ModelInfo
    headers: ResponseHeaders
    created: int = field(default_factory=lambda: int(time.time()))
    """Unix time of the server's start, by which clients sort models."""

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter(tags=["OpenAI"], route_class=json_route(self.settings.payload_limit))
        completion = {"model": Completion, "content": COMPLETION_EVENTS}
        chat = {"model": ChatCompletion, "content": CHAT_EVENTS}
        answers: dict[str, tuple[Any, Responses]] = {
            "/v1/completions": (self.completions, {200: completion, **OPENAI_ERRORS}),
            "/v1/chat/completions": (self.chat_completions, {200: chat, **OPENAI_ERRORS}),
        }
        for path, (handler, responses) in answers.items():
            router.add_api_route(path, handler, methods=["POST"], responses=responses, openapi_extra=TIMEOUT_HEADER)
        tokenized: Responses = {200: {"model": ChatTokenizeResponse}, **ERRORS}
        router.add_api_route("/chat_tokenize", self.chat_tokenize, methods=["POST"], responses=tokenized)
        models: Responses = {200: {"model": ModelList}, **errors(401, 403, model=OpenAiErrorResponse)}
        router.add_api_route("/v1/models", self.models, responses=models)
        one: Responses = {200: {"model": Model}, **errors(401, 403, 404, model=OpenAiErrorResponse)}
        # An id of the Hub has a slash.
        router.add_api_route("/v1/models/{id:path}", self.model, responses=one)
        return router

    async def models(self) -> Response:
        """Lists the served model."""
        return json_response(200, {"object": "list", "data": [self._model]})

    async def model(self, id: str) -> Response:
        """The served model. Any other id is a 404, though requests may name their `model` as they like."""
        if id != self.info.model_id:
            raise UnknownModel(id[:128])
        return json_response(200, self._model)

    async def completions(self, request: Request, body: CompletionRequest) -> Response:
        """Continues one prompt or several. With `stream`, sends chunks as server-sent events, then `[DONE]`."""
        async with self.live.opening(request) as lifecycle:
            await unless_client_leaves(request, lifecycle.start(completion_jobs(body, self.settings, self.info)))
            answer = CompletionAnswer(body, lifecycle, self.live.validator.tokenizer, self.info.model_id)
            if body.stream:
                return self._stream(lifecycle, answer)
        async with lifecycle:
            groups = without_sampled(body, await unless_client_leaves(request, lifecycle.collect()))
            num_tokens = sum(output.end.generated_tokens for group in groups for output in group)
            headers = self.headers.whole(lifecycle, num_tokens)
            del headers["x-compute-time"]  # TGI's route does not send it.
            return json_response(200, answer.whole(best_sequences(body, groups), num_tokens), headers)

    async def chat_completions(self, request: Request, body: ChatRequest) -> Response:
        """Answers a conversation; continues its last message if that is the assistant's. Streams like completions."""
        async with self.live.opening(request) as lifecycle:
            plan = plan_tools(body, self.settings.max_tools)
            await unless_client_leaves(request, lifecycle.start([self.job(body, plan)]))
            answer_type = ChatAnswer if body.functions is None else FunctionChatAnswer
            answer = answer_type(body, plan, lifecycle, self.live.validator.tokenizer, self.info.model_id)
            if body.stream:
                return self._stream(lifecycle, answer)
        async with lifecycle:
            (outputs,) = await unless_client_leaves(request, lifecycle.collect())
            num_tokens = sum(output.end.generated_tokens for output in outputs)
            return json_response(200, answer.whole(outputs), self.headers.whole(lifecycle, num_tokens))

    async def chat_tokenize(self, request: Request, body: ChatRequest) -> Response:
        """Renders the prompt of a chat, and tokenizes it."""
        return await answer_work(request, self.live, self._tokenized(body), self.settings.slow_client_timeout)

    def job(self, body: ChatRequest, plan: ToolPlan) -> PromptJob:
        """Makes the job of a chat. Raises InvalidRequest."""
        top_n = body.top_logprobs if body.logprobs else None
        max_tokens = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        defaults = self.info.sampling_defaults
        return PromptJob(
            RenderedPrompt(partial(self.prompt, body, plan)),
            generate_parameters(body, max_tokens=max_tokens, top_n=top_n, defaults=defaults, grammar=plan.grammar),
            num_sequences=1 if body.n is None else body.n,
            is_tgi=False,
            is_stream=bool(body.stream),
            has_logprobs=bool(body.logprobs),
            name="messages",
            count_name="n",
            speaker_labels=self.chat.speaker_labels,
            default_max_new_tokens=self.info.default_max_new_tokens,
        )

    async def prompt(self, body: ChatRequest, plan: ToolPlan, *, must_fit: bool = True) -> Prompt:
        """Renders and tokenizes a chat. Raises InvalidRequest or TemplateError, and, if it `must_fit`,
        ContextLengthExceeded for a text that is too long to be tokenized in vain."""
        escaped, validator = await render_chat(self.chat, body, plan), self.live.validator
        text = escaped.plain
        if must_fit:
            validator.check_fits(validator.min_tokens(text), "messages", is_tgi=False)
        ids = await validator.on_thread(lambda: self.chat.encode(escaped), len(text))
        return Prompt(text, ids)

    @property
    def _model(self) -> Model:
        id = self.info.model_id
        return {
            "id": id,
            "object": "model",
            "created": self.created,
            "owned_by": id,
            "max_model_len": self.info.max_total_tokens,
        }

    def _stream(self, lifecycle: RequestLifecycle, answer: EventFormatter) -> Response:
        headers = self.headers.stream(lifecycle)
        return EventStreamResponse(lifecycle, answer, headers, self.settings.slow_client_timeout)

    async def _tokenized(self, body: ChatRequest) -> Pieces:
        escaped = await render_chat(self.chat, body, plan_tools(body, self.settings.max_tools))
        text = escaped.plain
        spans = await self.live.validator.on_thread(lambda: self.chat.spans(escaped), len(text))
        return json_object(tokenize_response=span_list(text, spans), templated_text=json_text(text))
