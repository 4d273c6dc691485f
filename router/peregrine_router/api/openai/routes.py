"""OpenAI's routes: completions, chat completions, models; and TGI's /chat_tokenize, which takes a chat."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from peregrine_router.admission.prompts import Prompt, RenderedPrompt
from peregrine_router.admission.validator import PromptJob
from peregrine_router.api.openai.answer_schemas import ChatCompletion, Completion, ModelList, OpenAiErrorResponse
from peregrine_router.api.openai.chat_completions import ChatAnswer
from peregrine_router.api.openai.completions import CompletionAnswer, chosen, completion_jobs
from peregrine_router.api.openai.messages import explain_tools, plain_messages
from peregrine_router.api.openai.parameters import generate_parameters
from peregrine_router.api.openai.schemas import ChatRequest, CompletionRequest
from peregrine_router.api.openai.tools import ToolPlan, describe_tools, plan_tools
from peregrine_router.api.openapi import (
    CHAT_EVENTS,
    COMPLETION_EVENTS,
    ERRORS,
    OPENAI_ERRORS,
    TIMEOUT_HEADER,
    Responses,
    errors,
)
from peregrine_router.api.tgi.routes import token_spans
from peregrine_router.api.tgi.schemas import ChatTokenizeResponse
from peregrine_router.http.auth import PublicPaths
from peregrine_router.http.disconnect import unless_client_leaves
from peregrine_router.http.errors import json_response
from peregrine_router.http.live_requests import LiveRequests
from peregrine_router.http.request_body import json_route
from peregrine_router.http.response_headers import AnswerHeaders
from peregrine_router.http.sse import EventStreamResponse
from peregrine_router.interfaces import ModelInfo
from peregrine_router.settings import Settings
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.special_tokens import EscapedPrompt


@dataclass(frozen=True, slots=True)
class OpenAiApi:
    """The handlers. Each makes a `RequestLifecycle` and turns what comes of it into OpenAI's JSON."""

    public_paths: ClassVar[PublicPaths] = frozenset()
    runs: LiveRequests
    chat: Chat
    settings: Settings
    info: ModelInfo
    headers: AnswerHeaders

    def router(self) -> APIRouter:
        """The routes."""
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
        models: Responses = {200: {"model": ModelList}, **errors(401, model=OpenAiErrorResponse)}
        router.add_api_route("/v1/models", self.models, responses=models)
        return router

    async def models(self) -> Response:
        """The model that is served."""
        id = self.info.model_id
        model = {"id": id, "object": "model", "created": 0, "owned_by": id}
        return json_response(200, {"object": "list", "data": [model]})

    async def completions(self, request: Request, body: CompletionRequest) -> Response:
        """Continues one prompt or several. With `stream`, chunks as server-sent events, then `[DONE]`."""
        async with self.runs.opening(request) as run:
            await run.start(completion_jobs(body, self.settings))
            answer = CompletionAnswer(body, run, self.runs.validator.tokenizer, self.info.model_id)
            if body.stream:
                return EventStreamResponse(run, answer, self.headers.stream(run), self.settings.slow_client_timeout)
        async with run:
            groups = await unless_client_leaves(request, run.collect())
            num_generated = sum(each.end.generated_tokens for group in groups for each in group)
            headers = self.headers.whole(run, num_generated)
            del headers["x-compute-time"]  # TGI has none here.
            return json_response(200, answer.whole(chosen(body, groups), num_generated), headers)

    async def chat_completions(self, request: Request, body: ChatRequest) -> Response:
        """Answers a conversation, or continues a last message of the assistant. Streams like completions."""
        async with self.runs.opening(request) as run:
            plan = plan_tools(body, self.settings.max_tools)
            await run.start([self.job(body, plan)])
            answer = ChatAnswer(body, plan, run, self.runs.validator.tokenizer, self.info.model_id)
            if body.stream:
                return EventStreamResponse(run, answer, self.headers.stream(run), self.settings.slow_client_timeout)
        async with run:
            (sequences,) = await unless_client_leaves(request, run.collect())
            num_generated = sum(each.end.generated_tokens for each in sequences)
            return json_response(200, answer.whole(sequences), self.headers.whole(run, num_generated))

    async def chat_tokenize(self, body: ChatRequest) -> Response:
        """The prompt that a chat becomes, and its tokens."""
        escaped = await self._render(body, plan_tools(body, self.settings.max_tools))
        text = escaped.plain
        tokens = await self.runs.validator.on_thread(lambda: token_spans(text, self.chat.spans(escaped)))
        return json_response(200, {"tokenize_response": tokens, "templated_text": text})

    def job(self, body: ChatRequest, plan: ToolPlan) -> PromptJob:
        """What a chat asks for. Raises InvalidRequest."""
        top_n = body.top_logprobs if body.logprobs else None
        max_tokens = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        return PromptJob(
            RenderedPrompt(partial(self._prompt, body, plan)),
            generate_parameters(body, max_tokens=max_tokens, top_n=top_n, grammar=plan.grammar),
            num_sequences=1 if body.n is None else body.n,
            is_tgi=False,
            is_stream=bool(body.stream),
            has_logprobs=bool(body.logprobs),
            name="messages",
            extra_stop=self.chat.stop,
        )

    async def _prompt(self, body: ChatRequest, plan: ToolPlan) -> Prompt:
        escaped = await self._render(body, plan)
        ids = await self.runs.validator.on_thread(lambda: self.chat.encode(escaped))
        return Prompt(escaped.plain, ids)

    async def _render(self, body: ChatRequest, plan: ToolPlan) -> EscapedPrompt:
        messages = plain_messages(body.messages)
        if self.chat.knows_tools:
            return await self.chat.render(messages, describe_tools(plan) or None)
        return await self.chat.render(explain_tools(messages, plan, body.tool_prompt), None)
