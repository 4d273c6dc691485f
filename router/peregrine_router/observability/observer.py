"""Observers of requests: metrics, logs, traces. The HTTP side reports each phase and knows none of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from peregrine_router.request import Finished, Request


class Timings(NamedTuple):
    """Seconds of each phase of a request."""

    total: float
    validation: float
    queue: float
    inference: float


@dataclass(slots=True, eq=False)
class RequestRecord:
    """Facts of one request, filled in as they become known. Times are `time.monotonic()`."""

    id: str
    """The answer's `x-request-id`."""
    arrived_at: float
    operation: str = "text_completion"
    """The GenAI conventions' name of what is asked for: this, or `chat`."""
    trace_id: str = ""
    """32 hex digits of the request's trace, by which metrics refer to it; empty: it is not recorded."""
    queued_at: float | None = None
    scheduled_at: float | None = None
    """The first step that worked on it; known when that step's token has come, or the request has ended."""
    first_token_at: float | None = None
    ended_at: float | None = None
    requests: tuple[Request, ...] = ()
    """Every sequence, prompt by prompt; empty before validation."""
    prompts: tuple[str, ...] = ()
    """Text of every prompt, after templating. Recorded in traces only, and there only if the operator asks for it."""
    num_prompt_tokens: int = 0
    """Tokens of all prompts."""
    num_choices: int = 1
    """Sequences of each prompt."""
    finished: list[Finished] = field(default_factory=list)
    """The end of each sequence, in the order in which they ended."""

    @property
    def num_generated_tokens(self) -> int:
        """Tokens of all sequences that have ended."""
        return sum(each.generated_tokens for each in self.finished)

    @property
    def num_cached_tokens(self) -> int:
        """Prompt tokens found in the prefix cache. All sequences of a prompt report the same hit; it counts once."""
        return sum(each.cached_tokens for each in self.finished) // self.num_choices

    def timings(self, now: float) -> Timings:
        """Duration of each phase up to `now`; a phase that has not begun takes no time."""
        queued = now if self.queued_at is None else self.queued_at
        scheduled = now if self.scheduled_at is None else self.scheduled_at
        return Timings(now - self.arrived_at, queued - self.arrived_at, max(scheduled - queued, 0.0), now - scheduled)


class RequestObserver:
    """One observer of all requests. Its methods are called on the event loop: they return at once and never raise.

    A subclass overrides the phases that it needs. After `arrived`, exactly one of `answered` and `failed` is called.
    """

    def arrived(self, request: RequestRecord) -> None:
        """The headers and the body have been read."""

    def validated(self, request: RequestRecord) -> None:
        """The prompts are tokenized and every parameter is valid."""

    def queued(self, request: RequestRecord) -> None:
        """The engine has accepted every sequence."""

    def first_token(self, request: RequestRecord, now: float) -> None:
        """A first token has come, of any sequence; `tokens` follows."""

    def tokens(self, request: RequestRecord, count: int, seconds: float | None) -> None:
        """`count` new tokens of one sequence, `seconds` after those before; None if they are its first."""

    def answered(self, request: RequestRecord) -> None:
        """Every sequence has ended by itself."""

    def failed(self, request: RequestRecord, error: Exception, label: str) -> None:
        """The request has ended in an error, which `label` classifies as `tgi_request_failure` does."""


class RequestObservers:
    """Reports each phase to every observer, in order."""

    def __init__(self, observers: Sequence[RequestObserver]) -> None:
        self._observers = tuple(observers)
        overridden = [each.tokens for each in observers if type(each).tokens is not RequestObserver.tokens]
        # Called for every event of every stream: straight to the observer if a single one counts tokens.
        self.tokens = overridden[0] if len(overridden) == 1 else self._tokens

    def arrived(self, request: RequestRecord) -> None:
        """See RequestObserver."""
        for observer in self._observers:
            observer.arrived(request)

    def validated(self, request: RequestRecord) -> None:
        """See RequestObserver."""
        for observer in self._observers:
            observer.validated(request)

    def queued(self, request: RequestRecord) -> None:
        """See RequestObserver."""
        for observer in self._observers:
            observer.queued(request)

    def first_token(self, request: RequestRecord, now: float) -> None:
        """See RequestObserver."""
        for observer in self._observers:
            observer.first_token(request, now)

    def answered(self, request: RequestRecord) -> None:
        """See RequestObserver."""
        for observer in self._observers:
            observer.answered(request)

    def failed(self, request: RequestRecord, error: Exception, label: str) -> None:
        """See RequestObserver."""
        for observer in self._observers:
            observer.failed(request, error, label)

    def _tokens(self, request: RequestRecord, count: int, seconds: float | None) -> None:
        for observer in self._observers:
            observer.tokens(request, count, seconds)
