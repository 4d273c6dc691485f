"""Protocols between the router's floors: tests implement them with fakes."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from peregrine_router.request import Request, TokenEvent
from peregrine_server.protocol import Step, StepResult


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Gauges of one moment; from `preemptions` on, counters since the start."""

    queue_size: int = 0
    batch_size: int = 0
    kv_blocks_used: int = 0
    kv_blocks_cached: int = 0
    """Blocks not in use that hold a cached prefix."""
    kv_blocks_total: int = 0
    step_age: float = 0.0
    """Seconds since the shards could begin the oldest step in flight; 0 if there is none."""
    waiting_by_tenant: Mapping[str, int] = field(default_factory=dict)
    running_by_tenant: Mapping[str, int] = field(default_factory=dict)
    preemptions: int = 0
    evictions: int = 0
    """Cached blocks that gave way to others."""
    prompt_tokens: int = 0
    """Tokens of the prompts that began, those of siblings once."""
    cached_tokens: int = 0
    """Prompt tokens found in the prefix cache."""
    draft_tokens: int = 0
    accepted_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    step_tokens: int = 0
    """Tokens computed by steps, drafts aside."""
    budget_tokens: int = 0
    """Tokens that these steps could have computed, by the limits that held for them."""
    context_tokens: int = 0
    """Tokens whose keys and values the steps read: for each of a step's sequences, those computed so far."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The loaded model, and the limits that follow from it."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_device_type: str
    """cpu or cuda."""
    num_shard: int
    max_batch_total_tokens: int
    vocab_size: int
    max_input_tokens: int
    max_total_tokens: int
    sampling_defaults: Mapping[str, float] = field(default_factory=dict)
    """Parameter -> value in requests to OpenAI's routes that name none."""

    @property
    def default_max_new_tokens(self) -> int | None:
        """That of the model; None: it says nothing."""
        number = self.sampling_defaults.get("max_new_tokens")
        return None if number is None else int(number)


class TokenStream(Protocol):
    """One request's tokens. Raises GenerationFailed if the engine loses the request, Cancelled if `cancel` ended it."""

    @property
    def scheduled_at(self) -> float | None:
        """`time.monotonic()` of the first step that computes for the request; None before."""

    def take(self) -> Awaitable[list[TokenEvent]]:
        """Waits for a token; all that have come since the last call. Empty once the stream is over."""

    def aclose(self) -> Awaitable[None]:
        """Cancels the request if it still runs. May be called twice."""


class EngineClient(Protocol):
    """Turns requests into tokens."""

    def submit_group(self, requests: Sequence[Request]) -> Sequence[TokenStream]:
        """Queues requests of one tenant, all or none; a prompt that neighbours have in common is computed once. Raises
        Overloaded, InvalidRequest, DeadlineExceeded or GenerationFailed."""

    def cancel(self, request_id: str) -> bool:
        """Ends a request without another token; its reader gets `Cancelled`. False if it has ended or never was."""

    @property
    def is_healthy(self) -> bool:
        """Whether the engine can generate tokens now."""

    @property
    def stats(self) -> EngineStats:
        """The gauges of this moment."""


class Shards(Protocol):
    """The shards as the engine sees them: steps go in, results come out in the same order."""

    @property
    def failure(self) -> Exception | None:
        """Set once a shard has failed or died."""

    @property
    def is_responsive(self) -> bool:
        """Whether all shards live, however long their step takes."""

    @property
    def has_result(self) -> bool:
        """Whether `receive` would return at once."""

    async def send(self, step: Step) -> None: ...

    async def receive(self) -> StepResult: ...

    def give_up(self, reason: str) -> None:
        """Fails the shards: whoever waits for a result gets an error that says the reason."""

    def on_failure(self, call: Callable[[], object]) -> None:
        """Has `call` called when the shards fail."""


class StepObserver:
    """One listener to the steps of the shards; subclasses override what they need.

    Its methods are called on the event loop between steps: they return at once and never raise. Steps that compute
    nothing (heartbeats) are not reported.
    """

    def sent(self, step: Step) -> None:
        """Called just before a step goes to the shards, which may still be working on the one before."""

    def answered(self, step: Step, result: StepResult, seconds: float | None) -> None:
        """Called with the result of the oldest step in flight. `seconds`: from when the shards could begin it, which is
        its send time or the end of the step before, whichever is later; None if that is not known, because both results
        came while the router was busy."""

    def failed(self, step: Step) -> None:
        """Called when the shards fail while this step is the oldest in flight; no `answered` follows."""

    def spent(self, phase: str, seconds: float) -> None:
        """Called with the router's own part of a step: `schedule`, `wait` for the shards, or `deliver`."""
