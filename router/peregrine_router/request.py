"""The router's vocabulary: requests, the token events that answer them, and the errors that end them."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from peregrine_server.protocol import SamplingParams

__all__ = [
    "Cancelled",
    "ContextLengthExceeded",
    "DeadlineExceeded",
    "EngineDead",
    "FinishReason",
    "Finished",
    "GenerationFailed",
    "InvalidRequest",
    "Overloaded",
    "Request",
    "SamplingParams",
    "ServerStopping",
    "Tenant",
    "Token",
    "TokenEvent",
]


class FinishReason(StrEnum):
    """Reason for the end of a generation, in TGI's words."""

    LENGTH = "length"
    EOS_TOKEN = "eos_token"
    STOP_SEQUENCE = "stop_sequence"


@dataclass(frozen=True, slots=True)
class Request:
    """One validated generation: the prompt in tokens, how to sample, when to stop."""

    id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens that end this generation, besides the model's own end-of-text tokens."""
    hides_stop: bool = False
    """Whether a matched stop sequence is left out of the text (OpenAI) or ends it (TGI)."""
    speaker_labels: tuple[str, ...] = ()
    """Beginnings of another speaker's turn, such as "\\nUser": before a colon or the end of the text, they stop it."""
    tenant: str = ""
    """The API key's name; tenants share the server equally."""
    cache_salt: bytes = b""
    """The tenant's secret: only requests with the same one share cached prefixes."""
    adapter: str = ""
    """Name of the LoRA adapter that generates; empty for the model's own weights."""
    priority: int = 0
    """Among a tenant's waiting requests, the highest is next."""
    deadline: float | None = None
    """`time.monotonic()` at which an unfinished request ends with `DeadlineExceeded`; None: never."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """The identity of a client: by its API key, never by what it claims."""

    name: str = ""
    """Empty without API keys, and for the only key: a single tenant needs no fair share."""
    cache_salt: bytes = b""


# Made for every token of every stream: a frozen dataclass takes ten times as long to make, and longer to encode.
class Token(msgspec.Struct, frozen=True, gc=False):
    """A token as clients see it. `logprob` is None if it was not asked for, and for the first token of a prompt."""

    id: int
    text: str
    logprob: float | None = None
    special: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a generation. `generated_text` hides special tokens and includes a matched stop sequence."""

    reason: FinishReason
    generated_text: str
    generated_tokens: int
    cached_tokens: int = 0
    """Prompt tokens found in the prefix cache."""


class TokenEvent(msgspec.Struct, frozen=True, gc=False):
    """One generated token.

    Joined, the `text_delta` of a stream are its `generated_text`: special tokens add nothing, a character split over
    tokens arrives whole with its last. `Token.text` is the same, except that it shows special tokens.
    """

    index: int
    """Counts from 1."""
    token: Token
    text_delta: str
    top_tokens: tuple[Token, ...] = ()
    prefill: tuple[Token, ...] = ()
    """The prompt's tokens with log-probabilities; on the first event only, and only if asked for."""
    prefill_top: tuple[tuple[Token, ...], ...] = ()
    """The likeliest tokens in the place of each of `prefill`; none for the first. Empty unless asked for."""
    finished: Finished | None = None
    """On the last event only."""


class InvalidRequest(ValueError):
    """The request cannot be served as it is; the message says why (HTTP 422, and 400 on OpenAI's routes)."""


class ContextLengthExceeded(InvalidRequest):
    """Prompt and output are longer than the model's context. Clients look for the code and the words of OpenAI."""


class Overloaded(RuntimeError):
    """There is no room for another request now (HTTP 429)."""

    def __init__(self, message: str = "try again later", retry_after: float = 1.0) -> None:
        """`retry_after`: estimated seconds until there is room."""
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceeded(RuntimeError):
    """The request's time is over, or too short for its first token (HTTP 504)."""


class GenerationFailed(RuntimeError):
    """The engine lost the request through no fault of the client (HTTP 424)."""


class ShardFault(RuntimeError):
    """An error on a shard that fails one request; the message is for the log."""


class EngineDead(GenerationFailed):
    """The shards are gone, and with them every request. The operator reads why, clients do not."""


class ServerStopping(RuntimeError):
    """The server was told to stop, and the time of running requests is over (HTTP 503)."""


class Cancelled(RuntimeError):
    """POST /cancel ended the request (HTTP 499)."""
