"""The published clients, unchanged, against the real server with the demo model."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, ValidationError
from openai.types.chat import ChatCompletionMessageParam

from serving import ServerProcess, wait_until

pytestmark = pytest.mark.slow

PROMPT = "It was a fine morning, and"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--dtype", "float32", "--api-key", "secret", "--slow-client-timeout", "1") as server:
        server.client.headers["authorization"] = "Bearer secret"
        yield server


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.client.base_url}/v1", api_key="secret", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def hub(server: ServerProcess) -> InferenceClient:
    return InferenceClient(base_url=str(server.client.base_url), token="secret")


def test_openai_completions(client: openai.OpenAI, server: ServerProcess) -> None:
    """A greedy completion is what /generate answers; streamed, it is the same with its usage."""
    want = server.generate(PROMPT, max_new_tokens=12).json()["generated_text"]
    whole = client.completions.create(model="tgi", prompt=PROMPT, max_tokens=12, temperature=0)
    assert whole.choices[0].text == want
    assert whole.choices[0].finish_reason == "length"
    stream = client.completions.create(
        model="tgi", prompt=PROMPT, max_tokens=12, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == want
    assert chunks[-1].usage == whole.usage


def test_openai_batches_of_tokens(client: openai.OpenAI, server: ServerProcess) -> None:
    """Token ids are a prompt as good as their text; several prompts are answered in order."""
    ids = [token["id"] for token in server.client.post("/tokenize", json={"inputs": PROMPT}).json()]
    answers = [
        client.completions.create(model="tgi", prompt=prompt, max_tokens=5, temperature=0).choices
        for prompt in (PROMPT, ids, ["She said", PROMPT], [[1, 2], ids])
    ]
    assert len({choices[-1].text for choices in answers}) == 1


def test_openai_logprobs_and_echo(client: openai.OpenAI) -> None:
    """The prompt's log-probabilities are those that the model gives when it writes the same text."""
    first = client.completions.create(model="tgi", prompt=PROMPT, max_tokens=4, temperature=0, logprobs=1)
    again = client.completions.create(
        model="tgi", prompt=PROMPT + first.choices[0].text, max_tokens=1, temperature=0, logprobs=1, echo=True
    )
    wrote, read = first.choices[0].logprobs, again.choices[0].logprobs
    assert wrote is not None
    assert wrote.token_logprobs is not None
    assert read is not None
    assert read.tokens is not None
    assert read.token_logprobs is not None
    assert read.tokens[-5:-1] == wrote.tokens
    assert read.token_logprobs[-5:-1] == pytest.approx(wrote.token_logprobs, abs=1e-3)


def test_openai_scores_of_a_prompt(client: openai.OpenAI) -> None:
    """As lm-evaluation-harness reads them: a continuation is greedy if each number equals the largest of its row."""
    prompt = "It was a fine"
    likely = client.completions.create(model="tgi", prompt=prompt, max_tokens=6, temperature=0).choices[0].text
    given: dict[str, Any] = {
        "model": "tgi",
        "prompt": [prompt + likely, prompt + " xylophone"],
        "logprobs": 1,
        "echo": True,
    }
    scored = client.completions.create(**given, max_tokens=0)
    assert scored.usage is not None
    assert scored.usage.completion_tokens == 0
    is_greedy = []
    for choice in scored.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.token_logprobs is not None
        assert choice.logprobs.top_logprobs is not None
        rows = zip(choice.logprobs.token_logprobs[1:], choice.logprobs.top_logprobs[1:], strict=True)
        is_greedy.append([value == max(top.values()) for value, top in rows])
    assert is_greedy[0][-6:] == [True] * 6
    assert not all(is_greedy[1][-2:])


def test_openai_chat(client: openai.OpenAI) -> None:
    """A chat answers; streamed with the same seed it says the same."""
    given: dict[str, Any] = {"model": "tgi", "messages": MESSAGES, "max_completion_tokens": 16, "seed": 7}
    whole = client.chat.completions.create(**given, logprobs=True, top_logprobs=2)
    content = whole.choices[0].message.content
    assert content
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.content is not None
    described = b"".join(bytes(token.bytes or []) for token in whole.choices[0].logprobs.content).decode()
    assert described.startswith(content)
    chunks = list(client.chat.completions.create(**given, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
        },
    },
}


def test_openai_tools(client: openai.OpenAI) -> None:
    """A required call has arguments that fit the tool's schema; streamed, its pieces join to the same."""
    given: dict[str, Any] = {
        "model": "tgi",
        "messages": MESSAGES,
        "tools": [TOOL],
        "tool_choice": "required",
        "seed": 1,
    }
    whole = client.chat.completions.create(**given, max_tokens=80)
    assert whole.choices[0].finish_reason == "tool_calls"
    (call,) = whole.choices[0].message.tool_calls or []
    arguments = json.loads(call.function.arguments)
    assert set(arguments) == {"city", "unit"}
    assert arguments["unit"] in ("C", "F")
    pieces = [
        piece.function
        for chunk in client.chat.completions.create(**given, max_tokens=80, stream=True)
        for piece in chunk.choices[0].delta.tool_calls or []
    ]
    assert pieces[0].name == "get_weather"
    assert "".join(piece.arguments or "" for piece in pieces) == call.function.arguments


def test_cancel(server: ServerProcess, client: openai.OpenAI) -> None:
    """POST /cancel ends all sequences of a request; its client is told, and their blocks are free."""
    given: dict[str, Any] = {
        "model": "tgi",
        "prompt": "a",
        "max_tokens": 1900,
        "n": 2,
        "extra_body": {"ignore_eos": True},
    }
    stream = client.completions.create(**given, stream=True, extra_headers={"x-request-id": "mine"})
    events = iter(stream)
    next(events)
    assert server.client.post("/cancel/mine").json()["cancelled"]
    with pytest.raises(openai.APIError, match="cancelled"):
        list(events)
    assert wait_until(lambda: blocks_used(server) == 0, 2)


def test_openai_errors(client: openai.OpenAI) -> None:
    """Errors arrive as the client's own types, with the parameter that is wrong."""
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="tgi", messages=MESSAGES, max_tokens=0)
    assert error.value.param == "max_tokens"
    assert "strictly positive" in error.value.message
    with pytest.raises(openai.BadRequestError, match="This model's maximum context length is") as error:
        client.chat.completions.create(model="tgi", messages=[{"role": "user", "content": "x y " * 5000}])
    assert error.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    assert [model.id for model in client.models.list()] == ["peregrine/falcon-demo"]


def test_text_generation(hub: InferenceClient, server: ServerProcess) -> None:
    """InferenceClient's text_generation, whole, with details, streamed, and streamed with details."""
    want = server.generate(PROMPT, max_new_tokens=12).json()["generated_text"]
    # The client calls POST /, which puts the prompt first unless told otherwise.
    given: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "return_full_text": False}
    assert hub.text_generation(PROMPT, **given) == want
    details = hub.text_generation(PROMPT, **given, details=True, decoder_input_details=True)
    assert details.generated_text == want
    assert details.details is not None
    assert details.details.finish_reason == "length"
    assert len(details.details.tokens) == details.details.generated_tokens == 12
    assert "".join(token.text for token in details.details.prefill) == PROMPT
    assert "".join(hub.text_generation(PROMPT, **given, stream=True)) == want
    events = list(hub.text_generation(PROMPT, **given, stream=True, details=True, top_n_tokens=2))
    assert events[-1].generated_text == want
    assert events[-1].details is not None
    assert events[-1].details.generated_tokens == 12
    assert all(len(event.top_tokens or []) == 2 for event in events)


def test_text_generation_with_everything(hub: InferenceClient) -> None:
    """Every parameter that the client knows is understood."""
    details = hub.text_generation(
        PROMPT,
        details=True,
        best_of=2,
        do_sample=True,
        frequency_penalty=0.1,
        max_new_tokens=5,
        repetition_penalty=1.1,
        return_full_text=True,
        stop=["zebra"],
        temperature=0.7,
        top_k=20,
        top_n_tokens=2,
        top_p=0.9,
        truncate=100,
        typical_p=0.9,
    )
    assert details.generated_text.startswith(PROMPT)
    assert details.details is not None
    assert len(details.details.best_of_sequences or []) == 1


def test_text_generation_errors(hub: InferenceClient) -> None:
    """A wrong request raises the client's error for it."""
    with pytest.raises((ValidationError, HfHubHTTPError)):
        hub.text_generation(PROMPT, temperature=-1.0)


def test_chat_completion(hub: InferenceClient) -> None:
    """InferenceClient's chat_completion, whole and streamed."""
    given: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 16, "seed": 7}
    whole = hub.chat_completion(**given, logprobs=True, top_logprobs=2)
    assert whole.choices[0].message.content
    assert whole.usage.completion_tokens > 0
    parts = [chunk.choices[0].delta.content or "" for chunk in hub.chat_completion(**given, stream=True)]
    assert "".join(parts) == whole.choices[0].message.content


def blocks_used(server: ServerProcess) -> float:
    return server.metric("peregrine_kv_blocks_used")


def test_a_client_that_leaves_a_chat(server: ServerProcess, client: openai.OpenAI) -> None:
    """A stream of several choices that is closed stops computing at once, and its blocks come back."""
    given: dict[str, Any] = {"ignore_eos": True, "min_tokens": 1}
    stream = client.completions.create(model="tgi", prompt="a", max_tokens=1900, n=2, stream=True, extra_body=given)
    next(iter(stream))
    assert blocks_used(server) > 0
    stream.close()
    assert wait_until(lambda: blocks_used(server) == 0, 5)


def test_a_client_that_leaves_while_it_waits(server: ServerProcess) -> None:
    """So does a request that is not streamed."""
    body = {"inputs": "a", "parameters": {"max_new_tokens": 1900, "ignore_eos": True}}
    with pytest.raises(httpx.ReadTimeout):
        server.client.post("/generate", json=body, timeout=1.0)
    assert wait_until(lambda: blocks_used(server) == 0, 5)


def test_a_slow_reader_is_dropped(server: ServerProcess) -> None:
    """A client that does not read its stream is cancelled when the buffers are full, long before the stream's end."""
    body = json.dumps(
        {"prompt": "a", "n": 2, "max_tokens": 1900, "ignore_eos": True, "stream": True, "logprobs": 5}
    ).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nContent-Length: {len(body)}"
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", server.port))
        dropped, tokens = num_dropped(server), server.metric('tgi_batch_inference_count{method="decode"}')
        slow.sendall(head.encode() + b"\r\nContent-Type: application/json\r\n\r\n" + body)
        assert wait_until(lambda: blocks_used(server) > 0, 5)
        assert wait_until(lambda: num_dropped(server) == dropped + 1, 120)
        assert wait_until(lambda: blocks_used(server) == 0, 1)
        assert server.metric('tgi_batch_inference_count{method="decode"}') - tokens < 1500


def num_dropped(server: ServerProcess) -> float:
    return server.metrics().get('tgi_request_failure{err="dropped"}', 0)


def test_everything_was_given_back(server: ServerProcess) -> None:
    """After all of the above nothing runs and nothing is queued."""
    assert wait_until(lambda: blocks_used(server) == 0, 5)
    assert server.metric("tgi_queue_size") == server.metric("tgi_batch_current_size") == 0
    assert json.loads(server.client.get("/info").text)["model_id"] == "peregrine/falcon-demo"
