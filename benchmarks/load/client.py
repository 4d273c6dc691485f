"""Sends sessions and records when each token came: TGI's /generate_stream or OpenAI's /v1/completions."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import aiohttp

from benchmarks.load.workload import Session, Turn, as_text

REQUEST_SECONDS = 900
"""Timeout of a request in seconds, far beyond any answer's: a server that hangs is an error, not a hung benchmark."""
OnToken = Callable[[], None]


@dataclass(slots=True)
class Answer:
    """One request as its client saw it. Times in seconds, of one clock."""

    prompt_tokens: int
    sent: float
    token_times: list[float] = field(default_factory=list)
    """Time of each event with a token."""
    end: float = 0.0
    is_cancelled: bool = False
    error: str | None = None
    text: str = ""


class Api(Protocol):
    """The differences between the servers' routes."""

    path: str

    def body(self, prompt: tuple[int, ...] | str, turn: Turn) -> dict[str, Any]:
        """The JSON of a request."""

    def token(self, event: dict[str, Any]) -> str | None:
        """The text of the token in an event; None if there is none. Raises ValueError for an event of an error."""


class Tgi:
    """Text only. The end of the text is ignored where the server can (`ignore_eos` is Peregrine's extension)."""

    path = "/generate_stream"

    def body(self, prompt: tuple[int, ...] | str, turn: Turn) -> dict[str, Any]:
        text = prompt if isinstance(prompt, str) else as_text(prompt)
        return {"inputs": text, "parameters": {"max_new_tokens": turn.max_new_tokens, "ignore_eos": True}}

    def token(self, event: dict[str, Any]) -> str | None:
        if "error" in event:
            raise ValueError(event["error"])
        return str(event["token"]["text"]) if "token" in event else None


class OpenAI:
    """Prompts as token ids, which vLLM, llama.cpp's server and Peregrine take."""

    path = "/v1/completions"

    def __init__(self, model: str) -> None:
        self._model = model

    def body(self, prompt: tuple[int, ...] | str, turn: Turn) -> dict[str, Any]:
        return {
            "model": self._model,
            "prompt": prompt if isinstance(prompt, str) else list(prompt),
            "max_tokens": turn.max_new_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }

    def token(self, event: dict[str, Any]) -> str | None:
        if "error" in event:
            raise ValueError(str(event["error"]))
        if not event.get("choices"):
            return None
        choice = event["choices"][0]
        # llama.cpp tells the end in an event of its own.
        is_end = choice.get("finish_reason") is not None and not choice["text"]
        return None if is_end else str(choice["text"])


def make_api(name: Literal["tgi", "openai"], model: str) -> Api:
    """The API of that name on the command line."""
    return Tgi() if name == "tgi" else OpenAI(model)


async def run_load(
    url: str, api: Api, sessions: list[Session], concurrency: int | None, on_answer: OnToken = lambda: None
) -> list[Answer]:
    """Runs the load; every answer, in the order of their ends.

    `concurrency` None is an open loop: a session begins at its arrival, however slow the server. A number is a closed
    loop: that many clients, each taking the next session when its last has ended.
    """
    answers: list[Answer] = []
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, timeout=timeout, connector=connector) as http:

        async def hold(session: Session) -> None:
            async for answer in converse(http, api, session):
                answers.append(answer)
                on_answer()

        if concurrency is None:
            await _open_loop(sessions, hold)
        else:
            await _closed_loop(sessions, hold, concurrency)
    return answers


async def _open_loop(sessions: list[Session], hold: Callable[[Session], Any]) -> None:
    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for session in sessions:
            await asyncio.sleep(begin + session.arrival - time.perf_counter())
            group.create_task(hold(session))


async def _closed_loop(sessions: list[Session], hold: Callable[[Session], Any], concurrency: int) -> None:
    queue = iter(sessions)

    async def client() -> None:
        for session in queue:
            await hold(session)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(client())


async def converse(http: aiohttp.ClientSession, api: Api, session: Session) -> AsyncIterator[Answer]:
    """Sends the turns one by one; an error or a cancellation ends the conversation.

    The history holds the server's own words on routes that take text. Where prompts are ids, which no stream gives
    back, it holds as many ids of the next message instead: of the history the server has computed the prompts alone.
    """
    history: tuple[int, ...] | str = "" if isinstance(api, Tgi) else ()
    for turn in session.turns:
        prompt = history + as_text(turn.message) if isinstance(history, str) else history + turn.message
        answer = await ask(http, api, prompt, turn)
        yield answer
        if answer.error or answer.is_cancelled:
            return
        if isinstance(prompt, str):
            history = prompt + answer.text
        else:
            history = prompt + (turn.message * len(answer.token_times))[: len(answer.token_times)]


async def ask(http: aiohttp.ClientSession, api: Api, prompt: tuple[int, ...] | str, turn: Turn) -> Answer:
    """Sends one request; an error is recorded in the answer."""
    answer = Answer(len(prompt), time.perf_counter())
    try:
        async with http.post(api.path, json=api.body(prompt, turn)) as response:
            if response.status != 200:
                answer.error = f"{response.status}: {(await response.text())[:200]}"
            else:
                await _read(response, api, turn, answer)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        answer.error = f"{type(error).__name__}: {error}"
    answer.end = time.perf_counter()
    return answer


async def _read(response: aiohttp.ClientResponse, api: Api, turn: Turn, answer: Answer) -> None:
    rest = b""
    async for chunk in response.content.iter_any():
        now = time.perf_counter()
        *lines, rest = (rest + chunk).split(b"\n")
        for event in _events(lines):
            token = api.token(event)
            if token is None:
                continue
            answer.text += token
            answer.token_times.append(now)
            if len(answer.token_times) == turn.cancel_after:
                answer.is_cancelled = True
                response.close()
                return


def _events(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
            yield json.loads(line[5:])
