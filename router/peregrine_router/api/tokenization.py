"""Text to token ids and back: TGI's /tokenize, and vLLM's routes of the same purpose, by which lm_eval asks a server
for its tokenizer."""

from array import array
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NotRequired

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12.

from peregrine_router.admission.fields import Items, Objects
from peregrine_router.admission.generate_parameters import U32
from peregrine_router.admission.ranges import Rules
from peregrine_router.admission.rules import check, text_rules, vocabulary_rules
from peregrine_router.admission.validator import Validator
from peregrine_router.api.openai.messages import render_chat
from peregrine_router.api.openai.schemas import ChatRendering, ChatRequest, Message, Tool
from peregrine_router.api.openai.tools import plan_tools
from peregrine_router.api.openapi import ERRORS, UNAUTHORIZED
from peregrine_router.api.tgi.schemas import SimpleToken
from peregrine_router.api.token_json import json_object, json_text, span_list, token_count
from peregrine_router.http.auth import PublicPaths
from peregrine_router.http.errors import json_response
from peregrine_router.http.json_stream import Pieces, answer_work
from peregrine_router.http.live_requests import LiveRequests
from peregrine_router.http.request_body import json_route
from peregrine_router.settings import Settings
from peregrine_router.text.chat_template import Chat

MAX_IDS = 2**17
"""Most ids to decode at once. Each may stand for a hundred bytes: 13 MB of text."""
PATHS_IN_CONFIG = ("vocab_file", "merges_file", "tokenizer_file", "special_tokens_map_file", "name_or_path")
"""Fields of tokenizer_config.json that name files of the machine on which it was saved."""

CHAT_FIELDS = {"messages", "tools", *ChatRendering.model_fields}
"""Fields of a `TokenizeRequest` that are those of a chat."""


class TokenizeRequest(ChatRendering):
    """A text to tokenize: TGI's `inputs`, or vLLM's `prompt` or `messages`, which are answered as vLLM does."""

    inputs: str | None = Field(None, description="The text.", examples=["My name is Olivier and I"])
    prompt: str | None = Field(
        None, description="Instead of `inputs`: special tokens in it are tokens.", examples=["My name is Olivier and I"]
    )
    add_special_tokens: bool = Field(True, description="With `prompt`: add the tokens that begin every prompt.")
    return_token_strs: bool = Field(False, description="Not with `inputs`: answer with `token_strs`.")
    messages: Objects[Message] | None = Field(None, description="Instead of `inputs`: a chat.", min_length=1)
    tools: Objects[Tool] | None = Field(None, description="With `messages`: functions that the model may call.")


class TokenizeResponse(TypedDict):
    """The tokens of a `prompt` or a chat."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: NotRequired[list[str]]


class DetokenizeRequest(BaseModel):
    """Token ids to decode."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    tokens: Items[U32] = Field(description="Token ids.", examples=[[204, 23, 11]])
    skip_special_tokens: bool = Field(False, description="Leave special tokens out of the text.")


class DetokenizeResponse(TypedDict):
    """The text, under vLLM's name `prompt` and SGLang's `text`."""

    prompt: str
    text: str


class TokenizerInfo(TypedDict):
    """The fields of tokenizer_config.json, special tokens as strings, and the chat template in use."""

    tokenizer_class: str
    chat_template: NotRequired[str]
    bos_token: NotRequired[str]
    eos_token: NotRequired[str]


@dataclass(frozen=True, slots=True)
class TokenizationApi:
    """The handlers of the tokenizer's routes."""

    public_paths: ClassVar[PublicPaths] = frozenset()
    live: LiveRequests
    chat: Chat
    settings: Settings

    @property
    def validator(self) -> Validator:
        """The owner of the tokenizer and its threads."""
        return self.live.validator

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter(tags=["Tokenizer"], route_class=json_route(self.settings.payload_limit))
        for path, handler, model in (
            ("/tokenize", self.tokenize, list[SimpleToken] | TokenizeResponse),
            ("/detokenize", self.detokenize, DetokenizeResponse),
        ):
            responses: dict[int | str, dict[str, Any]] = {200: {"model": model}, **ERRORS}
            router.add_api_route(path, handler, methods=["POST"], responses=responses)
        described: dict[int | str, dict[str, Any]] = {200: {"model": TokenizerInfo}, **UNAUTHORIZED}
        router.add_api_route("/tokenizer_info", self.tokenizer_info, responses=described)
        return router

    async def tokenize(self, request: Request, body: TokenizeRequest) -> Response:
        """Tokenizes a text. `start` and `stop` are byte offsets into its UTF-8."""
        if body.messages is not None or body.prompt is not None:
            return await self._answer(request, self._tokenize_as_vllm(body))
        text = body.inputs or ""
        check(text_rules(text, "inputs"))
        return await self._answer(request, self._tokenize(text))

    async def detokenize(self, request: Request, body: DetokenizeRequest) -> Response:
        """Decodes token ids to text."""
        check(count_rules_of_ids(len(body.tokens)))
        if body.tokens:
            check(vocabulary_rules(body.tokens, self.validator.info))
        return await self._answer(request, self._decode(body))

    async def tokenizer_info(self) -> Response:
        """The tokenizer's configuration."""
        config = self.validator.tokenizer.config
        answer = {name: value for name, value in config.items() if name not in PATHS_IN_CONFIG}
        answer = {"tokenizer_class": "PreTrainedTokenizerFast", **answer, **self.chat.special_tokens}
        if self.chat.template is not None:
            answer["chat_template"] = self.chat.template
        return json_response(200, answer)

    async def _answer(self, request: Request, work: Coroutine[Any, Any, Pieces]) -> Response:
        return await answer_work(request, self.live, work, self.settings.slow_client_timeout)

    async def _tokenize(self, text: str) -> Pieces:
        encode = self.validator.tokenizer.prompt_spans
        return span_list(text, await self.validator.on_thread(lambda: encode(text), len(text)))

    async def _tokenize_as_vllm(self, body: TokenizeRequest) -> Pieces:
        ids = await (self._tokenize_chat(body) if body.prompt is None else self._tokenize_prompt(body, body.prompt))
        tokenizer = self.validator.tokenizer if body.return_token_strs else None
        return token_count(ids, self.validator.info.max_total_tokens, tokenizer)

    async def _tokenize_prompt(self, body: TokenizeRequest, text: str) -> Sequence[int]:
        tokenizer, adds_special = self.validator.tokenizer, body.add_special_tokens

        def encode() -> Sequence[int]:
            return array("I", tokenizer.encode(text, add_special_tokens=adds_special, has_special_tokens=True))

        return await self.validator.on_thread(encode, len(text))

    async def _tokenize_chat(self, body: TokenizeRequest) -> Sequence[int]:
        # The messages as they are: dumped, they would be validated again, on the event loop.
        chat = ChatRequest.model_validate({name: getattr(body, name) for name in CHAT_FIELDS})
        escaped = await render_chat(self.chat, chat, plan_tools(chat, self.settings.max_tools))
        return await self.validator.on_thread(lambda: array("I", self.chat.encode(escaped)), len(escaped.text))

    async def _decode(self, body: DetokenizeRequest) -> Pieces:
        ids, hides_special, tokenizer = body.tokens, body.skip_special_tokens, self.validator.tokenizer
        text = await self.validator.on_thread(
            lambda: tokenizer.decode(ids, skip_special_tokens=hides_special), len(ids)
        )
        return json_object(prompt=json_text(text), text=json_text(text))


def count_rules_of_ids(count: int) -> Rules:
    """Number of ids to decode: their text is in memory as a whole."""
    yield count > MAX_IDS, f"`tokens` may hold {MAX_IDS} ids. Given: {count}"
