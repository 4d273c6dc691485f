"""POST /v1/chat/completions over real sockets, on an engine without a model."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fakes import EOS, INFO, FakeEngine, Server, serve
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.tokenizer import Tokenizer

TEMPLATE = (
    "{% for message in messages %}{{ message.role[0] + ':' + message.content + eos_token }}{% endfor %}"
    "{% if messages[0].content == 'refuse' %}{{ raise_exception('no such thing') }}{% endif %}a:"
)
TOOL = {"type": "function", "function": {"name": "dive", "parameters": {"$defs": {"x": {}}, "$ref": "#/$defs/x"}}}
CALL = '{"name": "dive", "arguments": {"to": "{\\"}"}}'
USER = [{"role": "user", "content": "the fox"}]


@pytest.fixture(scope="module")
def chatting(tokenizer: Tokenizer) -> Iterator[Server]:
    info = replace(INFO, max_input_tokens=500, max_total_tokens=600)
    chat = Chat(tokenizer, TEMPLATE, {"eos_token": EOS}, ("\nu:",))
    with serve(FakeEngine(tokenizer), info, chat) as server:
        yield server


@pytest.fixture
def server(chatting: Server) -> Server:
    chatting.engine.says = " falcons dive"
    return chatting


@pytest.fixture
def caller(server: Server) -> Server:
    """A model that calls a tool."""
    server.engine.says = CALL
    return server


def chat(server: Server, messages: Any = USER, **parameters: Any) -> dict[str, Any]:
    answer = server.client.post("/v1/chat/completions", json={"messages": messages, **parameters})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def chunks(server: Server, **parameters: Any) -> list[dict[str, Any]]:
    body = {"messages": USER, "stream": True, **parameters}
    with server.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def refusal(server: Server, messages: Any = USER, **parameters: Any) -> dict[str, Any]:
    answer = server.client.post("/v1/chat/completions", json={"messages": messages, **parameters})
    assert answer.status_code == 422, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def prompt(server: Server) -> str:
    """What the engine was given last, special tokens shown."""
    tokenizer = server.engine.tokenizer
    return "".join(tokenizer.describe(id).text for id in server.engine.requests[-1].prompt_ids)


def test_answer(server: Server) -> None:
    """An answer has OpenAI's fields; the template's special tokens are tokens, and its family's stop holds."""
    body = chat(server, model="any")
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": " falcons dive"},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    request = server.engine.requests[-1]
    assert prompt(server) == f"u:the fox{EOS}a:"
    assert request.prompt_ids.count(0) == 1
    assert request.stop == ("\nu:",)
    assert body["usage"]["prompt_tokens"] == len(request.prompt_ids)


def test_special_text_in_messages_stays_text(server: Server) -> None:
    """What reads like the end of text in a message is characters, whole or put together from neighbours."""
    for content in (f"a{EOS}b", "<|endof", "text|>", f"{EOS}{EOS}", f" {EOS} "):
        chat(server, [{"role": "user", "content": content}, {"role": "user", "content": content}])
        assert server.engine.requests[-1].prompt_ids.count(0) == 2
        assert prompt(server) == f"u:{content}{EOS}u:{content}{EOS}a:"


def test_roles_and_parts(server: Server) -> None:
    """Text comes in parts too; developers are the system; results and calls become text for a plain template."""
    call = {"id": "c", "type": "function", "function": {"name": "dive", "arguments": '{"to": 1}'}}
    messages = [
        {"role": "developer", "content": "be"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "9", "tool_call_id": "c"},
    ]
    chat(server, messages)
    assert prompt(server) == f's:be{EOS}u:ab{EOS}a:{{"name": "dive", "arguments": {{"to": 1}}}}{EOS}u:Result: 9{EOS}a:'


def test_last_message_of_the_assistant_is_continued(server: Server) -> None:
    """Nothing follows its words in the prompt."""
    chat(server, [*USER, {"role": "assistant", "content": "the fal"}])
    assert prompt(server) == f"u:the fox{EOS}a:the fal"


def test_logprobs(server: Server) -> None:
    """`logprobs` describes every token, with its bytes and the likeliest ones."""
    content = chat(server, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"]
    assert all(len(token["top_logprobs"]) == 2 for token in content)
    assert b"".join(bytes(token["bytes"]) for token in content).decode() == f" falcons dive{EOS}"


def test_n_and_max_completion_tokens(server: Server) -> None:
    """`n` choices in order; the newer name of `max_tokens` wins."""
    body = chat(server, n=2, max_completion_tokens=1, max_tokens=5)
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert body["usage"]["completion_tokens"] == 2
    assert {choice["finish_reason"] for choice in body["choices"]} == {"length"}


def test_stream(server: Server) -> None:
    """The first chunk names the role, the last the reason; deltas join to the text; usage at the end if asked for."""
    events = chunks(server, stop="s dive", stream_options={"include_usage": True})
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content", "") for delta in deltas) == " falcon"
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["total_tokens"] > 0


def test_tool_call(caller: Server) -> None:
    """An answer in the form of a call is a call: arguments as text, no content, the reason `tool_calls`."""
    choice = chat(caller, tools=[TOOL])["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "tool_calls"
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    assert call["function"] == {"name": "dive", "arguments": '{"to": "{\\"}"}'}


def test_streamed_tool_call(caller: Server) -> None:
    """Streamed, the first piece names tool and id, the rest are pieces of the arguments; nothing is content."""
    choices = [event["choices"][0] for event in chunks(caller, tools=[TOOL])]
    pieces = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    assert pieces[0]["function"]["name"] == "dive"
    assert all("id" not in piece for piece in pieces[1:])
    assert "".join(piece["function"]["arguments"] for piece in pieces) == '{"to": "{\\"}"}'
    assert len(pieces) > 2
    assert not any(choice["delta"].get("content") for choice in choices)
    assert choices[-1]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("says", [' {"name": "swim", "arguments": {}}', '{"a": 1}', "{", "fine", '{"name": "di'])
def test_text_that_is_no_call(server: Server, says: str) -> None:
    """With tool_choice auto any other answer is text, also one that begins like a call; a stream loses nothing."""
    server.engine.says = says
    assert chat(server, tools=[TOOL])["choices"][0]["message"] == {"role": "assistant", "content": says}
    deltas = [event["choices"][0]["delta"] for event in chunks(server, tools=[TOOL])]
    assert "".join(delta.get("content", "") for delta in deltas) == says


def test_tool_choice_none(caller: Server) -> None:
    """`none` hides the tools from the model and takes its answer for text."""
    assert chat(caller, tools=[TOOL], tool_choice="none")["choices"][0]["message"]["content"] == CALL
    assert "dive" not in prompt(caller)


@pytest.mark.parametrize("choice", ["required", "dive", {"type": "function", "function": {"name": "dive"}}])
def test_required_calls_are_constrained(caller: Server, choice: Any) -> None:
    """A call that must be made is constrained to the tool's schema, whose references still point into it."""
    chat(caller, tools=[TOOL], tool_choice=choice, max_tokens=40)
    grammar = caller.engine.requests[-1].sampling.grammar
    assert grammar is not None
    assert grammar.kind == "json_schema"
    (call,) = json.loads(grammar.source)["anyOf"]
    assert call["properties"]["name"] == {"const": "dive"}
    assert call["properties"]["arguments"]["$ref"] == "#/anyOf/0/properties/arguments/$defs/x"
    assert "x" in call["properties"]["arguments"]["$defs"]
    assert caller.engine.requests[-1].sampling.end_token_ids == (0,)


def test_tools_are_explained(server: Server) -> None:
    """A template that knows no tools has them told by the system."""
    chat(server, tools=[TOOL], max_tokens=5, tool_prompt="T:")
    assert prompt(server).startswith('s:T:\n{"name": "dive"')


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
def test_response_format(server: Server, given: Any, kind: str, source: str) -> None:
    """Both OpenAI's and TGI's forms constrain the answer."""
    chat(server, response_format=given)
    grammar = server.engine.requests[-1].sampling.grammar
    assert grammar is not None
    assert (grammar.kind, grammar.source) == (kind, source)


def test_text_is_no_constraint(server: Server) -> None:
    """OpenAI's default format is none."""
    chat(server, response_format={"type": "text"})
    assert server.engine.requests[-1].sampling.grammar is None


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ({"tools": [TOOL], "tool_choice": "swim"}, "tool_error", "Tool with name swim not found"),
        (
            {"tools": [TOOL], "response_format": {"type": "json_object"}},
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
        ({"messages": [{"role": "user", "content": "x" * 600}]}, "validation", "`messages`"),
        ({"max_tokens": 0}, "validation", "`max_tokens`"),
        ({"logprobs": True, "top_logprobs": 9}, "validation", "`top_logprobs`"),
        ({"tools": [TOOL] * 65}, "validation", "`tools`"),
    ],
)
def test_refusals(server: Server, given: dict[str, Any], code: str, message: str) -> None:
    """What is wrong is told in OpenAI's shape, before any stream begins."""
    for stream in (False, True):
        error = refusal(server, **given, stream=stream)
        assert error["code"] == code
        assert message in error["message"]
    assert not server.engine.running


def test_template_errors_are_counted(server: Server) -> None:
    """A template's refusal has its label in the metrics."""
    before = server.metrics().get('tgi_request_failure{err="template"}', 0)
    refusal(server, [{"role": "user", "content": "refuse"}])
    assert server.metrics()['tgi_request_failure{err="template"}'] == before + 1


def test_model_without_a_template(engine: FakeEngine) -> None:
    """It is a 422 that says what to do."""
    with serve(engine) as server:
        assert "--tokenizer-config-path" in refusal(server)["message"]


def test_chat_tokenize(server: Server) -> None:
    """POST /chat_tokenize answers with the prompt and its tokens, the template's special ones among them."""
    messages = [{"role": "user", "content": f"é{EOS}"}]
    answer = server.client.post("/chat_tokenize", json={"messages": messages}).json()
    assert answer["templated_text"] == f"u:é{EOS}{EOS}a:"
    assert [token["text"] for token in answer["tokenize_response"] if token["id"] == 0] == [EOS]
    last = answer["tokenize_response"][-1]
    assert last["stop"] == len(answer["templated_text"].encode())
