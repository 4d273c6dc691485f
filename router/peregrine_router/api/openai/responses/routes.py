"""OpenAI's routes of responses: create, retrieve, delete, list the input items."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from peregrine_router.admission.prompts import Prompt
from peregrine_router.api.openai.responses.answer import ResponseAnswer
from peregrine_router.api.openai.responses.answer_schemas import DeletedResponse, Item, ItemList, ResponseObject
from peregrine_router.api.openai.responses.chat_request import chat_request
from peregrine_router.api.openai.responses.context import SHOWN_ID_LENGTH, whole_conversation
from peregrine_router.api.openai.responses.conversation import messages_of
from peregrine_router.api.openai.responses.schemas import ResponseRequest
from peregrine_router.api.openai.responses.store import ResponseStore, StoredResponse
from peregrine_router.api.openai.responses.truncation import ConversationPrompt
from peregrine_router.api.openai.routes import OpenAiApi
from peregrine_router.api.openai.schemas import ChatRequest
from peregrine_router.api.openai.tools import ToolPlan, plan_tools
from peregrine_router.api.openapi import OPENAI_ERRORS, RESPONSE_EVENTS, TIMEOUT_HEADER, errors
from peregrine_router.http.auth import PublicPaths
from peregrine_router.http.disconnect import unless_client_leaves
from peregrine_router.http.errors import OpenAiErrorResponse, json_response
from peregrine_router.http.exceptions import UnknownItem, UnknownResponse
from peregrine_router.http.request_body import json_route
from peregrine_router.http.request_lifecycle import RequestLifecycle
from peregrine_router.http.sse import EventStreamResponse, encode_named_events
from peregrine_router.request import InvalidRequest

Limit = Annotated[int, Query(ge=1, le=100, description="Most items of a page.")]
Order = Annotated[Literal["asc", "desc"], Query(description="desc: the latest first.")]
After = Annotated[str | None, Query(description="Id of an item: the page begins behind it.")]


@dataclass(frozen=True, slots=True)
class ResponsesApi:
    """The handlers of /v1/responses. A response is generated as the chat that asks for the same."""

    public_paths: ClassVar[PublicPaths] = frozenset()
    openai: OpenAiApi
    store: ResponseStore

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter(tags=["OpenAI"], route_class=json_route(self.openai.settings.payload_limit))
        created: dict[int | str, Any] = {200: {"model": ResponseObject, "content": RESPONSE_EVENTS}, **OPENAI_ERRORS}
        created |= errors(404, model=OpenAiErrorResponse)
        path, one = "/v1/responses", "/v1/responses/{id}"
        router.add_api_route(path, self.create, methods=["POST"], responses=created, openapi_extra=TIMEOUT_HEADER)
        stored = errors(400, 401, 403, 404, model=OpenAiErrorResponse)
        answers: tuple[tuple[str, str, Any, Any], ...] = (
            ("GET", one, self.retrieve, ResponseObject),
            ("DELETE", one, self.delete, DeletedResponse),
            ("GET", f"{one}/input_items", self.input_items, ItemList),
            ("POST", f"{one}/cancel", self.cancel, ResponseObject),
        )
        for method, path, handler, model in answers:
            router.add_api_route(path, handler, methods=[method], responses={200: {"model": model}, **stored})
        return router

    async def create(self, request: Request, body: ResponseRequest) -> Response:
        """Answers the `input`, after the conversation of `previous_response_id`. With `stream`, sends typed events."""
        async with self.openai.live.opening(request) as lifecycle:
            items = whole_conversation(body, self.store, request.state.key_id)
            chat = chat_request(body, items)
            plan = plan_tools(chat, self.openai.settings.max_tools)
            source = self._prompt(body, chat, plan, items)
            job = replace(self.openai.job(chat, plan), source=source)
            await unless_client_leaves(request, lifecycle.start([job]))
            answer = self._answer(body, plan, lifecycle, self._keep(request, body, source))
            if body.stream:
                headers, timeout = self.openai.headers.stream(lifecycle), self.openai.settings.slow_client_timeout
                return EventStreamResponse(lifecycle, answer, headers, timeout, encode_named_events)
        async with lifecycle:
            await unless_client_leaves(request, _read(lifecycle, answer))
            headers = self.openai.headers.whole(lifecycle, answer.num_output_tokens)
            return json_response(200, answer.whole(), headers)

    async def retrieve(self, request: Request, id: str, stream: bool = False) -> Response:
        """A stored response."""
        stored = self._find(request, id)
        if stream:
            raise InvalidRequest("`stream` is not supported here: the response is complete; leave it out")
        return Response(stored.json, media_type="application/json")

    async def delete(self, request: Request, id: str) -> Response:
        """Forgets a stored response. Those that continue it stay."""
        if not self.store.delete(request.state.key_id, id):
            raise UnknownResponse(id[:SHOWN_ID_LENGTH])
        return json_response(200, {"id": id, "object": "response", "deleted": True})

    async def input_items(
        self, request: Request, id: str, limit: Limit = 20, order: Order = "desc", after: After = None
    ) -> Response:
        """The items that a stored response was made of, those of the responses before it among them."""
        items = self._find(request, id).input
        items = items if order == "asc" else items[::-1]
        ids = [item["id"] for item in items]
        if after is not None and after not in ids:
            raise UnknownItem(after[:SHOWN_ID_LENGTH])
        first = 0 if after is None else ids.index(after) + 1
        page, has_more = items[first : first + limit], first + limit < len(items)
        ends = {"first_id": page[0]["id"] if page else "", "last_id": page[-1]["id"] if page else ""}
        return json_response(200, {"object": "list", "data": page, **ends, "has_more": has_more})

    async def cancel(self, request: Request, id: str) -> Response:
        """Refused: only responses made in the background can be cancelled, and there are none."""
        self._find(request, id)
        raise InvalidRequest("Cannot cancel a synchronous response: it is complete")

    def _find(self, request: Request, id: str) -> StoredResponse:
        stored = self.store.find(request.state.key_id, id)
        if stored is None:
            raise UnknownResponse(id[:SHOWN_ID_LENGTH])
        return stored

    def _prompt(
        self, body: ResponseRequest, chat: ChatRequest, plan: ToolPlan, items: list[Item]
    ) -> ConversationPrompt:
        async def render(items: Sequence[Item]) -> Prompt:
            messages = messages_of(body.instructions, items)
            conversation = chat.model_copy(update={"messages": messages})
            return await self.openai.prompt(conversation, plan, must_fit=not truncates)

        truncates = body.truncation == "auto"
        return ConversationPrompt(items, render, max_output_tokens=body.max_output_tokens, truncates=truncates)

    def _answer(
        self,
        body: ResponseRequest,
        plan: ToolPlan,
        lifecycle: RequestLifecycle,
        keep: Callable[[ResponseObject], None] | None,
    ) -> ResponseAnswer:
        tokenizer, model = self.openai.live.validator.tokenizer, self.openai.info.model_id
        return ResponseAnswer(body, plan, lifecycle, tokenizer, model, keep)

    def _keep(
        self, request: Request, body: ResponseRequest, source: ConversationPrompt
    ) -> Callable[[ResponseObject], None] | None:
        """Stores the complete response with the conversation before it; None if it is not to be stored."""
        if body.store is False or not self.store.is_on:
            return None
        return lambda response: self.store.put(request.state.key_id, response, source.items)


async def _read(lifecycle: RequestLifecycle, answer: ResponseAnswer) -> None:
    """Passes every token to the answer."""
    async for number, events in lifecycle.events():
        for event in events:
            answer.event(number, event)
