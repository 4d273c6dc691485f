"""Text to token ids and back: TGI's /tokenize, and vLLM's routes of the same purpose, by which lm_eval asks a server
for its tokenizer."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, NotRequired

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12.

from peregrine_router.admission.generate_parameters import U32
from peregrine_router.admission.rules import check, text_rules, vocabulary_rules
from peregrine_router.admission.validator import Validator
from peregrine_router.api.openapi import ERRORS, UNAUTHORIZED
from peregrine_router.api.tgi.schemas import SimpleToken
from peregrine_router.http.auth import PublicPaths
from peregrine_router.http.errors import json_response
from peregrine_router.http.request_body import json_route
from peregrine_router.text.chat_template import Chat

PATHS_IN_CONFIG = ("vocab_file", "merges_file", "tokenizer_file", "special_tokens_map_file", "name_or_path")
"""Fields of tokenizer_config.json that name files of the machine on which it was saved."""


class TokenizeRequest(BaseModel):
    """A text to tokenize: TGI's `inputs`, or vLLM's `prompt`, which is answered as vLLM does."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    inputs: str | None = Field(None, description="The text.", examples=["My name is Olivier and I"])
    prompt: str | None = Field(
        None, description="Instead of `inputs`: special tokens in it are tokens.", examples=["My name is Olivier and I"]
    )
    add_special_tokens: bool = Field(True, description="With `prompt`: add the tokens that begin every prompt.")
    return_token_strs: bool = Field(False, description="With `prompt`: answer with `token_strs`.")


class TokenizeResponse(TypedDict):
    """The tokens of a `prompt`."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: NotRequired[list[str]]


class DetokenizeRequest(BaseModel):
    """Token ids to decode."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    tokens: list[U32] = Field(description="Token ids.", examples=[[204, 23, 11]])
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
    validator: Validator
    chat: Chat
    payload_limit: int

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter(tags=["Tokenizer"], route_class=json_route(self.payload_limit))
        for path, handler, model in (
            ("/tokenize", self.tokenize, list[SimpleToken] | TokenizeResponse),
            ("/detokenize", self.detokenize, DetokenizeResponse),
        ):
            responses: dict[int | str, dict[str, Any]] = {200: {"model": model}, **ERRORS}
            router.add_api_route(path, handler, methods=["POST"], responses=responses)
        described: dict[int | str, dict[str, Any]] = {200: {"model": TokenizerInfo}, **UNAUTHORIZED}
        router.add_api_route("/tokenizer_info", self.tokenizer_info, responses=described)
        return router

    async def tokenize(self, body: TokenizeRequest) -> Response:
        """Tokenizes a text. `start` and `stop` are byte offsets into its UTF-8."""
        if body.prompt is not None:
            return json_response(200, await self._tokenize_prompt(body, body.prompt))
        text, tokenizer = body.inputs or "", self.validator.tokenizer
        check(text_rules(text, "inputs"))
        tokens = await self.validator.on_thread(lambda: token_spans(text, tokenizer.encode_spans(text)))
        return json_response(200, tokens)

    async def detokenize(self, body: DetokenizeRequest) -> Response:
        """Decodes token ids to text."""
        ids, hides_special = body.tokens, body.skip_special_tokens
        if ids:
            check(vocabulary_rules(ids, self.validator.info))
        tokenizer = self.validator.tokenizer
        text = await self.validator.on_thread(lambda: tokenizer.decode(ids, skip_special_tokens=hides_special))
        return json_response(200, {"prompt": text, "text": text})

    async def tokenizer_info(self) -> Response:
        """The tokenizer's configuration."""
        config = self.validator.tokenizer.config
        answer = {name: value for name, value in config.items() if name not in PATHS_IN_CONFIG}
        answer = {"tokenizer_class": "PreTrainedTokenizerFast", **answer, **self.chat.special_tokens}
        if self.chat.template is not None:
            answer["chat_template"] = self.chat.template
        return json_response(200, answer)

    async def _tokenize_prompt(self, body: TokenizeRequest, text: str) -> TokenizeResponse:
        tokenizer, adds_special = self.validator.tokenizer, body.add_special_tokens
        ids = await self.validator.on_thread(
            lambda: tokenizer.encode(text, add_special_tokens=adds_special, has_special_tokens=True)
        )
        limit = self.validator.info.max_total_tokens
        answer: TokenizeResponse = {"count": len(ids), "max_model_len": limit, "tokens": ids}
        if body.return_token_strs:
            answer["token_strs"] = [tokenizer.describe(id).text for id in ids]
        return answer


def token_spans(text: str, spans: list[tuple[int, int, int]]) -> list[SimpleToken]:
    """Converts spans (token id, start, stop) in characters to TGI's tokens in bytes of UTF-8.

    Tokens that split a character all have that character as their text.
    """
    offsets = [0, *accumulate(len(character.encode()) for character in text)]
    return [
        {"id": id, "text": text[start:stop], "start": offsets[start], "stop": offsets[stop]}
        for id, start, stop in spans
    ]
