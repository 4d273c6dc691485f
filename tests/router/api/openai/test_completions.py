"""POST /v1/completions over real sockets, on an engine without a model."""

import json
from typing import Any

import pytest

from fakes import FakeEngine, Server, serve
from peregrine_router.request import GenerationFailed


def complete(server: Server, prompt: Any = "the", **parameters: Any) -> dict[str, Any]:
    answer = server.client.post("/v1/completions", json={"prompt": prompt, **parameters})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def chunks(server: Server, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream, which must end with [DONE]."""
    with server.client.stream("POST", "/v1/completions", json={"stream": True, **body}) as answer:
        assert answer.status_code == 200
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def refusal(server: Server, **body: Any) -> dict[str, Any]:
    answer = server.client.post("/v1/completions", json=body)
    assert answer.status_code == 400
    error: dict[str, Any] = answer.json()["error"]
    return error


def test_answer(server: Server) -> None:
    """An answer has OpenAI's fields, an id of its own, and the tokens of prompt and text in `usage`."""
    body = complete(server, "the fox", model="any")
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    assert body["id"] != complete(server)["id"]
    assert body["model"] == "any"
    assert body["choices"] == [{"index": 0, "text": " falcons dive", "logprobs": None, "finish_reason": "stop"}]
    prompt, total = body["usage"]["prompt_tokens"], body["usage"]["total_tokens"]
    assert prompt == len(server.engine.requests[0].prompt_ids)
    assert total == prompt + body["usage"]["completion_tokens"]


def test_usage_tells_what_was_cached(server: Server) -> None:
    """OpenAI's `prompt_tokens_details` sum over the prompts, however many sequences each has."""
    server.engine.cached_tokens = 2
    assert complete(server, ["the", "fox"], n=2)["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}


def test_headers_have_no_compute_time(server: Server) -> None:
    """TGI's headers sum over the prompts, without x-compute-time."""
    headers = server.client.post("/v1/completions", json={"prompt": ["the", "fox"], "max_tokens": 2}).headers
    assert headers["x-compute-characters"] == "6"
    assert headers["x-generated-tokens"] == "4"
    assert "x-compute-time" not in headers


@pytest.mark.parametrize(
    ("prompt", "count"), [("the", 1), (["the", "fox"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2), (["the"], 1)]
)
def test_forms_of_prompts(server: Server, prompt: Any, count: int) -> None:
    """A prompt is text or token ids, one or several, each answered by a choice in its place."""
    assert [choice["index"] for choice in complete(server, prompt)["choices"]] == list(range(count))
    if isinstance(prompt[0], int):
        assert server.engine.requests[-1].prompt_ids == tuple(prompt)


def test_n_and_best_of(engine: FakeEngine) -> None:
    """The `n` answers are ordered by prompt; from `best_of` sequences the best are chosen."""
    with serve(engine) as server:
        body = complete(server, ["the", "fox"], n=2, echo=True)
        assert [choice["text"] for choice in body["choices"]] == ["the falcons dive"] * 2 + ["fox falcons dive"] * 2
        seeds = {request.sampling.seed for request in engine.requests}
        assert len(seeds) == 4
        engine.logprobs = (-3.0, -1.0, -2.0)
        engine.requests.clear()
        best = complete(server, n=1, best_of=3, logprobs=0)
    assert best["choices"][0]["logprobs"]["token_logprobs"][0] == -1.0
    assert best["usage"]["completion_tokens"] > len(best["choices"][0]["logprobs"]["tokens"])


def test_stop_is_left_out(server: Server) -> None:
    """`stop`, a string or a list, ends the text before it, and the reason is `stop`."""
    for stop in ("s di", ["nothing", "s di"]):
        choice = complete(server, stop=stop)["choices"][0]
        assert (choice["text"], choice["finish_reason"]) == (" falcon", "stop")
    assert complete(server, max_tokens=1)["choices"][0]["finish_reason"] == "length"


def test_logprobs_and_echo(server: Server) -> None:
    """`logprobs` describes each token, with `echo` those of the prompt too; offsets count characters of the text."""
    choice = complete(server, "the fox", logprobs=2, echo=True, max_tokens=3)["choices"][0]
    logprobs = choice["logprobs"]
    assert choice["text"].startswith("the fox falcon")
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    # The two likeliest, and the chosen one.
    assert {len(top) for top in logprobs["top_logprobs"][1:]} <= {2, 3}
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert choice["text"][offset:].startswith(token)


def test_the_likeliest_token_of_a_prompt_has_the_number_that_it_has_as_chosen(server: Server) -> None:
    """`top_logprobs` of every prompt token but the first holds the chosen one, and the likeliest if that is another."""
    server.engine.likeliest = (1,)  # logprob -1.0, as the fake engine's prompt tokens have
    ids = [9, 1, 8]
    logprobs = complete(server, ids, logprobs=1, echo=True, max_tokens=1)["choices"][0]["logprobs"]
    first, same, other = logprobs["top_logprobs"][:3]
    assert first is None
    assert same == {logprobs["tokens"][1]: logprobs["token_logprobs"][1]}
    assert len(other) == 2
    assert other[logprobs["tokens"][2]] == logprobs["token_logprobs"][2]


@pytest.mark.parametrize("prompt", ["the fox", ["the", "fox"], [5, 6, 7], ["the fox"] * 8])
def test_no_tokens_with_echo_score_the_prompt(server: Server, prompt: Any) -> None:
    """With `max_tokens` 0 and `echo` the answer is the prompt, its log-probabilities, and no token of the model."""
    body = complete(server, prompt, logprobs=1, echo=True, max_tokens=0)
    assert body["usage"]["completion_tokens"] == 0
    for choice, request in zip(body["choices"], server.engine.requests, strict=True):
        assert choice["text"] == server.engine.tokenizer.decode(list(request.prompt_ids))
        assert choice["finish_reason"] == "length"
        assert {len(values) for values in choice["logprobs"].values()} == {len(request.prompt_ids)}


@pytest.mark.parametrize("more", [{}, {"logprobs": 1}, {"n": 2}, {"best_of": 2, "logprobs": 0}])
def test_no_tokens_without_echo_are_an_empty_text(server: Server, more: dict[str, Any]) -> None:
    """OpenAI's least `max_tokens` is 0: the answer is complete, with nothing in it."""
    body = complete(server, "the fox", max_tokens=0, **more)
    assert {(choice["text"], choice["finish_reason"]) for choice in body["choices"]} == {("", "length")}
    assert not any(choice["logprobs"] and choice["logprobs"]["tokens"] for choice in body["choices"])
    assert body["usage"]["completion_tokens"] == 0


def test_a_stream_of_no_tokens(server: Server) -> None:
    """The stream of a prompt that is only scored has one chunk, equal to the whole answer."""
    body = {"prompt": "the fox", "echo": True, "max_tokens": 0, "logprobs": 1}
    (event,) = chunks(server, **body)
    assert event["choices"] == complete(server, **body)["choices"]


def test_a_batch_of_eight_prompts(server: Server) -> None:
    """lm-evaluation-harness sends as many prompts in a request as it is told, often eight."""
    body = complete(server, [[5, 6], [7, 8]] * 4, echo=True, logprobs=1, max_tokens=1)
    assert [choice["index"] for choice in body["choices"]] == list(range(8))


def test_stream(server: Server) -> None:
    """Chunks join to the text of each choice; the last of a choice says why it ended; `usage` comes at the very end."""
    events = chunks(server, prompt=["the", "fox"], stop="s dive", echo=True, stream_options={"include_usage": True})
    assert len({event["id"] for event in events}) == 1
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["total_tokens"] > events[-1]["usage"]["prompt_tokens"] > 0
    assert [event["usage"] for event in events[:-1]] == [None] * (len(events) - 1)
    choices = [event["choices"][0] for event in events[:-1]]
    for index, prompt in enumerate(("the", "fox")):
        mine = [choice for choice in choices if choice["index"] == index]
        assert "".join(choice["text"] for choice in mine) == f"{prompt} falcon"
        assert [choice["finish_reason"] for choice in mine[:-1]] == [None] * (len(mine) - 1)
        assert mine[-1]["finish_reason"] == "stop"


def test_stream_without_usage(server: Server) -> None:
    """Without `include_usage` a stream has no usage."""
    assert all("usage" not in event for event in chunks(server, prompt="the"))


def test_streamed_logprobs_are_those_of_the_answer(server: Server) -> None:
    """Joined, the log-probabilities of a stream equal those of the whole answer."""
    whole = complete(server, "the fox", logprobs=1, echo=True)["choices"][0]["logprobs"]
    parts = [event["choices"][0]["logprobs"] for event in chunks(server, prompt="the fox", logprobs=1, echo=True)]
    assert {name: [each for part in parts for each in part[name]] for name in whole} == whole


def test_failure_in_a_stream(engine: FakeEngine) -> None:
    """A stream of several sequences of which one fails ends with an error in OpenAI's shape, and nothing runs on."""
    engine.error_at, engine.error = 3, GenerationFailed("shard 0 exited")
    with serve(engine) as server:
        body = {"prompt": ["the", "fox"], "stream": True}
        text = server.client.post("/v1/completions", json=body).text
    last = json.loads(text.strip().rpartition("data: ")[2])
    assert last["error"]["code"] == "generation"
    assert not engine.running


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"prompt": "the", "suffix": "x"}, None, "Suffix is not supported"),
        ({"prompt": []}, None, "Empty array detected"),
        ({"prompt": ["a"] * 2049}, None, "allowed batch size of 2048; the operator sets this by --max-client-batch"),
        ({"prompt": ["a"] * 65, "n": 2}, None, "--max-concurrent-requests"),
        ({"prompt": "x" * 100}, "prompt", "This model's maximum context length is 80 tokens"),
        ({"prompt": "x" * 70}, "prompt", "80 tokens, 60 of them for the prompt. However, your `prompt` resulted in 70"),
        ({"prompt": "the", "max_tokens": 90}, "prompt", "Please reduce the length of the `prompt` or completion"),
        ({"prompt": [[]]}, "prompt", "`prompt"),
        ({"prompt": [320]}, None, "token 320 is not in the model's vocabulary"),
        ({"prompt": ""}, "prompt", "`prompt` cannot be empty"),
        ({"prompt": "a\0"}, "prompt", "NUL"),
        ({"prompt": "the", "n": 129}, "n", "`n` must be > 0 and <= 128. Given: 129; the operator sets this by --max-b"),
        ({"prompt": "the", "n": 0}, "n", "`n` must be > 0 and <= 128"),
        ({"prompt": "the", "best_of": 129}, "best_of", "`best_of` must be > 0 and <= 128"),
        ({"prompt": "the", "n": 2, "best_of": 1}, "best_of", "`best_of` must be >= `n`"),
        ({"prompt": "the", "best_of": 2, "stream": True}, "best_of", "streaming"),
        ({"prompt": "the", "stop": ["a"] * 5}, "stop", "--max-stop-sequences"),
        (
            {"prompt": "the", "logprobs": 21},
            "logprobs",
            "`logprobs` must be >= 0 and <= 20. Given: 21; the operator sets this by --max-top-n",
        ),
        ({"prompt": "the", "stream_options": {"include_usage": True}}, "stream_options", "`stream`"),
        ({"prompt": "the", "temperature": -1}, "temperature", "strictly positive"),
        ({"prompt": "the", "logit_bias": {"x": 1}}, "logit_bias", "token ids must be mapped to numbers. Given: x"),
        ({}, "prompt", "Field required"),
    ],
)
def test_refusals(server: Server, body: dict[str, Any], param: str | None, message: str) -> None:
    """Errors have OpenAI's shape and name the parameter."""
    error = refusal(server, **body)
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"
    if param is not None:
        assert error["param"] == param
