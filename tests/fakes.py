"""An engine without a model, a small tokenizer, and a real HTTP server around them."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import tokenizers
import uvicorn
from fastapi import FastAPI
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from exposition import parse_metrics
from peregrine_router.app import build_app
from peregrine_router.interfaces import EngineStats, ModelInfo
from peregrine_router.launch.connections import connection_limits
from peregrine_router.launch.http_protocol import bounded_protocol
from peregrine_router.observability.observer import RequestObserver
from peregrine_router.observability.tracing import RequestTracer
from peregrine_router.request import Cancelled, Finished, FinishReason, Request, Token, TokenEvent
from peregrine_router.settings import Settings
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.tokenizer import Tokenizer

EOS = "<|endoftext|>"
CORPUS = ["the quick brown fox jumps over the lazy dog", "falcons dive; the falcon dives again and again"]


def falcon_pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """The steps in tokenizer.json of falcon-7b, 40b and 180B."""
    steps = [
        pre_tokenizers.Punctuation("contiguous"),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
    ]
    return pre_tokenizers.Sequence(steps)


def train_backend() -> tokenizers.Tokenizer:
    """Byte-level BPE, as every Falcon's; id 0 is the end of text."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS * 5, trainer)
    return backend


def make_tokenizer() -> Tokenizer:
    """The above with its end of text."""
    return Tokenizer(train_backend(), frozenset({0}))


INFO = ModelInfo(
    model_id="peregrine/test",
    model_sha=None,
    model_dtype="float32",
    model_device_type="cpu",
    num_shard=1,
    max_batch_total_tokens=4096,
    vocab_size=320,
    max_input_tokens=60,
    max_total_tokens=80,
)


@dataclass
class FakeEngine:
    """Says `says` to everyone, then the end of text; its behaviour can be changed while it serves."""

    tokenizer: Tokenizer
    says: str = " falcons dive"
    delay: float = 0.0
    error_at: int | None = None
    """The number of the token in whose place `error` is raised."""
    error: Exception = field(default_factory=RuntimeError)
    is_cut: bool = False
    """Whether streams end without their last event."""
    submit_error: Exception | None = None
    cached_tokens: int = 0
    """Prefix cache hit of every prompt, in tokens."""
    logprobs: tuple[float, ...] = (-0.5,)
    """Log-probability of every token of the first, second, ... request; repeated."""
    likeliest: tuple[int, ...] = tuple(range(1, 100))
    """Tokens that are the likeliest everywhere; the log-probability of each is minus its id."""
    is_healthy: bool = True
    stats: EngineStats = field(default_factory=EngineStats)
    requests: list[Request] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)

    def _submit(self, request: Request) -> "FakeStream":
        if self.submit_error is not None:
            raise self.submit_error
        logprob = self.logprobs[len(self.requests) % len(self.logprobs)]
        self.requests.append(request)
        self.running.add(request.id)
        return FakeStream(self, request, logprob)

    def submit_group(self, requests: Sequence[Request]) -> list["FakeStream"]:
        """One after the other."""
        return [self._submit(request) for request in requests]

    def cancel(self, request_id: str) -> bool:
        """See peregrine_router.interfaces.EngineClient."""
        if request_id not in self.running:
            return False
        self.running.remove(request_id)
        self.cancelled.append(request_id)
        return True


class FakeStream:
    """One request's tokens."""

    def __init__(self, engine: FakeEngine, request: Request, logprob: float) -> None:
        self.scheduled_at: float | None = None
        self._engine = engine
        self._request = request
        self._logprob = logprob if request.sampling.logprobs else None
        self._ids = [*engine.tokenizer.encode(engine.says, has_special_tokens=True), 0]
        self._text = engine.tokenizer.stream(request.stop, request.hides_stop, request.speaker_labels)
        self._is_over = False
        self._index = 0

    async def take(self) -> list[TokenEvent]:
        """See peregrine_router.interfaces.TokenStream: one token a time."""
        engine = self._engine
        if self._is_over or (engine.is_cut and self._index == 2):
            return []
        self.scheduled_at = self.scheduled_at or time.monotonic()
        await asyncio.sleep(engine.delay)
        if self._request.id not in engine.running:
            raise Cancelled
        if engine.error_at == self._index + 1:
            engine.running.discard(self._request.id)
            raise engine.error
        return [self._next_event()]

    async def aclose(self) -> None:
        """See peregrine_router.interfaces.TokenStream."""
        self._is_over = True
        self._engine.cancel(self._request.id)

    def _next_event(self) -> TokenEvent:
        request, tokenizer = self._request, self._engine.tokenizer
        token_id = self._ids[self._index % len(self._ids)]
        self._index += 1
        delta = self._text.push(token_id)
        reason = self._reason(token_id)
        if reason is not None:
            delta += self._text.flush()
            self._engine.running.discard(request.id)
            self._is_over = True
        token = tokenizer.describe(token_id, self._logprob)
        is_first_with_prefill = self._index == 1 and request.sampling.prompt_logprobs
        return TokenEvent(
            index=self._index,
            token=token if token.special else Token(token_id, delta, self._logprob),
            text_delta=delta,
            top_tokens=self._top(),
            prefill=self._prefill() if is_first_with_prefill else (),
            prefill_top=self._prefill_top() if is_first_with_prefill else (),
            finished=None if reason is None else self._finished(reason),
        )

    def _top(self) -> tuple[Token, ...]:
        count, describe = self._request.sampling.top_n_tokens, self._engine.tokenizer.describe
        return tuple(describe(id, -float(id)) for id in self._engine.likeliest[:count])

    def _finished(self, reason: FinishReason) -> Finished:
        return Finished(reason, self._text.text, self._index, cached_tokens=self._engine.cached_tokens)

    def _reason(self, token_id: int) -> FinishReason | None:
        if self._text.matched is not None:
            return FinishReason.STOP_SEQUENCE
        if self._index == self._request.max_new_tokens:
            return FinishReason.LENGTH
        return FinishReason.EOS_TOKEN if token_id == 0 and not self._request.ignore_eos else None

    def _prefill(self) -> tuple[Token, ...]:
        ids = self._request.prompt_ids
        return tuple(self._engine.tokenizer.describe(id, None if at == 0 else -1.0) for at, id in enumerate(ids))

    def _prefill_top(self) -> tuple[tuple[Token, ...], ...]:
        top = self._top()
        return tuple(() if at == 0 else top for at in range(len(self._request.prompt_ids))) if top else ()


class Server:
    """A client of a server that runs in a thread, and the engine behind it."""

    def __init__(self, url: str, engine: FakeEngine) -> None:
        self.url = url
        self.engine = engine
        # Certificates of HTTPS would be read for every client, which takes 20 ms.
        self.client = httpx.Client(base_url=url, timeout=10, verify=False)

    def generate(self, inputs: str = "the", path: str = "/generate", **parameters: Any) -> httpx.Response:
        """POSTs to a route."""
        return self.client.post(path, json={"inputs": inputs, "parameters": parameters})

    def metrics(self) -> dict[str, float]:
        """Every series by its name and labels."""
        return parse_metrics(self.client.get("/metrics").text)


@contextlib.contextmanager
def serve(
    engine: FakeEngine,
    info: ModelInfo = INFO,
    chat: Chat | None = None,
    observers: Sequence[RequestObserver] = (),
    tracer: RequestTracer | None = None,
    **settings: Any,
) -> Iterator[Server]:
    """The app on a free port."""
    options = Settings(**settings)
    app = build_app(engine, engine.tokenizer, options, info, chat=chat, observers=observers, tracer=tracer)
    with listen(app, options) as url:
        server = Server(url, engine)
        with server.client:
            yield server


class PromptServer(uvicorn.Server):
    """uvicorn without its two pauses of 100 ms at the end: hundreds of tests have a server each."""

    async def main_loop(self) -> None:
        """Ticks until `should_exit`."""
        counter = 0
        while not await self.on_tick(counter):
            counter += 1
            await asyncio.sleep(0.005)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends at once if no client is connected."""
        await asyncio.sleep(0.005)  # a client that has just closed its connection is noticed first
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
            return
        for server in self.servers:
            server.close()
        await self.lifespan.shutdown()


@contextlib.contextmanager
def listen(app: FastAPI, settings: Settings | None = None) -> Iterator[str]:
    """Runs uvicorn in a thread until the block ends."""
    protocol = bounded_protocol(connection_limits(settings or Settings()), getattr(app.state, "early_refusals", None))
    config = uvicorn.Config(
        app, http=protocol, log_config=None, access_log=False, timeout_graceful_shutdown=2, lifespan="on"
    )
    server = PromptServer(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def wait_until(condition: Any, seconds: float = 5.0) -> None:
    """Fails if `condition` does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
