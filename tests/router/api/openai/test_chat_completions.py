"""POST /v1/chat/completions over real sockets, on an engine without a model."""

from typing import Any

import pytest

from chats import TOOL, USER, chat, chunks, prompt, refusal
from fakes import EOS, FakeEngine, Server, serve


def test_answer(chatting: Server) -> None:
    """An answer has OpenAI's fields; the template's special tokens are tokens, and its speaker's label stops it."""
    body = chat(chatting, model="any")
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": " falcons dive", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    request = chatting.engine.requests[-1]
    assert prompt(chatting) == f"u:the fox{EOS}a:"
    assert request.prompt_ids.count(0) == 1
    assert request.speaker_labels == ("\nu",)
    assert body["usage"]["prompt_tokens"] == len(request.prompt_ids)


def test_last_message_of_the_assistant_is_continued(chatting: Server) -> None:
    """A last message of the assistant ends the prompt, so that the model continues it."""
    chat(chatting, [*USER, {"role": "assistant", "content": "the fal"}])
    assert prompt(chatting) == f"u:the fox{EOS}a:the fal"


def test_logprobs(chatting: Server) -> None:
    """`logprobs` describes every token, with its bytes and the most probable tokens."""
    content = chat(chatting, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"]
    assert all(len(token["top_logprobs"]) == 2 for token in content)
    assert b"".join(bytes(token["bytes"]) for token in content).decode() == f" falcons dive{EOS}"


def test_n_and_max_completion_tokens(chatting: Server) -> None:
    """`n` choices in order; the newer name of `max_tokens` wins."""
    body = chat(chatting, n=2, max_completion_tokens=1, max_tokens=5)
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert body["usage"]["completion_tokens"] == 2
    assert {choice["finish_reason"] for choice in body["choices"]} == {"length"}


def test_stream(chatting: Server) -> None:
    """The first chunk names the role, the last the reason; deltas join to the text; usage at the end if asked for."""
    events = chunks(chatting, stop="s dive", stream_options={"include_usage": True})
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content", "") for delta in deltas) == " falcon"
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["total_tokens"] > 0
    assert [event["usage"] for event in events[:-1]] == [None] * (len(events) - 1)


def test_nothing_is_refused(chatting: Server) -> None:
    """`refusal` is null in a message and in its log-probabilities: OpenAI's own are never without it."""
    (choice,) = chat(chatting, logprobs=True)["choices"]
    assert choice["message"]["refusal"] is choice["logprobs"]["refusal"] is None


@pytest.mark.parametrize(
    ("given", "kind", "source"),
    [
        ({"type": "json_object"}, "json_schema", '{"type":"object"}'),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"a": 1}}}, "json_schema", '{"a":1}'),
        ({"type": "json", "value": {"a": 1}}, "json_schema", '{"a":1}'),
        ({"type": "regex", "value": "a+"}, "regex", "a+"),
        ({"type": "lark", "value": 'start: "a"'}, "lark", 'start: "a"'),
    ],
)
def test_response_format(chatting: Server, given: Any, kind: str, source: str) -> None:
    """Response formats in OpenAI's and TGI's form become the grammar of the output."""
    chat(chatting, response_format=given)
    grammar = chatting.engine.requests[-1].sampling.grammar
    assert grammar is not None
    assert (grammar.kind, grammar.source) == (kind, source)


def test_text_is_no_constraint(chatting: Server) -> None:
    """OpenAI's default response format leaves the text unconstrained."""
    chat(chatting, response_format={"type": "text"})
    assert chatting.engine.requests[-1].sampling.grammar is None


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ({"tools": [TOOL], "tool_choice": "swim"}, "tool_error", "Tool with name swim not found"),
        (
            {
                "tools": [TOOL],
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"tools": [{"type": "function", "function": {"name": "swim"}}]},
                },
            },
            "tool_error",
            "Tool with name swim not found",
        ),
        (
            {"tools": [TOOL], "response_format": {"type": "regex", "value": "a+"}},
            "tool_error",
            "Grammar and tools are mutually exclusive",
        ),
        (
            {"tools": [TOOL], "response_format": {"type": "json_object"}, "model": "tgi"},
            "tool_error",
            "Grammar and tools are mutually exclusive",
        ),
        ({"messages": [{"role": "user", "content": "refuse"}]}, "template_error", "Template error: no such thing"),
        ({"messages": []}, "validation", "at least 1 item"),
        ({"messages": [{"role": "pope", "content": "a"}]}, "validation", "role"),
        ({"messages": [{"role": "user", "content": "a\0"}]}, "validation", "NUL"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "validation",
            "text only",
        ),
        ({"messages": [{"role": "user", "content": "x" * 600}]}, "context_length_exceeded", "`messages`"),
        ({"max_tokens": 600}, "context_length_exceeded", "This model's maximum context length is 600 tokens"),
        ({"n": 129}, "validation", "`n` must be > 0 and <= 128"),
        ({"max_tokens": 0}, "validation", "`max_tokens`"),
        ({"logprobs": True, "top_logprobs": 21}, "validation", "`top_logprobs` must be >= 0 and <= 20"),
        ({"tools": [TOOL] * 65}, "validation", "`tools`"),
        ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, "validation", "`tools.0.type`"),
        ({"modalities": ["text", "audio"]}, "validation", "`modalities.1`: Input should be 'text'"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "validation", "`audio`: this is not supported"),
        ({"web_search_options": {}}, "validation", "`web_search_options`: this is not supported"),
        ({"moderation": {"model": "omni"}}, "validation", "`moderation`: this is not supported"),
    ],
)
def test_refusals(chatting: Server, given: dict[str, Any], code: str, message: str) -> None:
    """Errors have OpenAI's shape, and come before any stream begins."""
    for stream in (False, True):
        error = refusal(chatting, **given, stream=stream)
        assert error["code"] == code
        assert message in error["message"]
    assert not chatting.engine.running


def test_template_errors_are_counted(chatting: Server) -> None:
    """A template's refusal has its label in the metrics."""
    before = chatting.metrics().get('tgi_request_failure{err="template"}', 0)
    refusal(chatting, [{"role": "user", "content": "refuse"}])
    assert chatting.metrics()['tgi_request_failure{err="template"}'] == before + 1


def test_model_without_a_template(engine: FakeEngine) -> None:
    """A chat with a model without a template is a 400 that says what to do."""
    with serve(engine) as server:
        assert "--tokenizer-config-path" in refusal(server)["message"]
