"""Tools of a chat: grammars of required calls, and calls in the output."""

import json
from typing import Any

import openai
import pytest

from chats import CALL, TOOL, USER, chat, chunks, prompt
from fakes import Server


def test_tool_call(caller: Server) -> None:
    """Output in the form of a call becomes a tool call: arguments as text, no content, the reason `tool_calls`."""
    choice = chat(caller, tools=[TOOL])["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "tool_calls"
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    assert call["function"] == {"name": "dive", "arguments": '{"to": "{\\"}"}'}


def test_streamed_tool_call(caller: Server) -> None:
    """In a stream the first part has name and id, the others parts of the arguments; nothing is content."""
    choices = [event["choices"][0] for event in chunks(caller, tools=[TOOL])]
    pieces = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    assert pieces[0]["function"]["name"] == "dive"
    assert all("id" not in piece for piece in pieces[1:])
    assert "".join(piece["function"]["arguments"] for piece in pieces) == '{"to": "{\\"}"}'
    assert len(pieces) > 2
    assert not any(choice["delta"].get("content") for choice in choices)
    assert choices[-1]["finish_reason"] == "tool_calls"


def test_calls_among_text(chatting: Server) -> None:
    """Text around calls is content beside them; in a stream each call has its index, and id and name in one delta."""
    chatting.engine.says = f"I dive. {CALL} Again: [{CALL}]"
    message = chat(chatting, tools=[TOOL])["choices"][0]["message"]
    assert message["content"] == "I dive.  Again: "
    assert len({call["id"] for call in message["tool_calls"]}) == 2
    choices = [event["choices"][0] for event in chunks(chatting, tools=[TOOL])]
    pieces = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == message["content"]
    assert choices[-1]["finish_reason"] == "tool_calls"
    for index, whole in enumerate(message["tool_calls"]):
        first, *others = [piece for piece in pieces if piece["index"] == index]
        assert first["function"]["name"] == "dive"
        assert first["id"].startswith("call_")
        assert all(piece.keys() == {"index", "function"} for piece in others)
        arguments = "".join(piece["function"]["arguments"] for piece in (first, *others))
        assert arguments == whole["function"]["arguments"]


def test_openai_puts_streamed_calls_together(chatting: Server) -> None:
    """The stream helper of OpenAI's client makes the same message of the deltas as of the whole answer."""
    chatting.engine.says = f"I dive. {CALL} and\n```json\n{CALL}\n```"
    whole = chat(chatting, tools=[TOOL])["choices"][0]["message"]
    given: dict[str, Any] = {"model": "falcon", "messages": USER, "tools": [TOOL]}
    client = openai.OpenAI(base_url=f"{chatting.url}/v1", api_key="x", max_retries=0)
    with client, client.chat.completions.stream(**given) as stream:
        choice = stream.get_final_completion().choices[0]
    assert choice.message.content == whole["content"] == "I dive.  and\n"
    functions = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or []]
    assert functions == [(call["function"]["name"], call["function"]["arguments"]) for call in whole["tool_calls"]]
    assert len(functions) == 2
    assert choice.finish_reason == "tool_calls"


def test_parallel_tool_calls(chatting: Server) -> None:
    """`parallel_tool_calls: false` leaves the first call."""
    chatting.engine.says = f"{CALL}\n{CALL}"
    given: dict[str, Any] = {"tools": [TOOL]}
    assert len(chat(chatting, **given)["choices"][0]["message"]["tool_calls"]) == 2
    assert len(chat(chatting, **given, parallel_tool_calls=False)["choices"][0]["message"]["tool_calls"]) == 1


def test_text_that_is_cut_off_behind_a_call(chatting: Server) -> None:
    """The reason is `length` if the limit of tokens cuts off a second call, which is content as far as it goes."""
    chatting.engine.says = f"{CALL} {CALL}"
    num_tokens = len(chatting.engine.tokenizer.encode(chatting.engine.says))
    choice = chat(chatting, tools=[TOOL], max_tokens=num_tokens - 2)["choices"][0]
    assert len(choice["message"]["tool_calls"]) == 1
    assert choice["message"]["content"].startswith(' {"name"')
    assert choice["finish_reason"] == "length"


def allowed(mode: str, *names: str) -> dict[str, Any]:
    """A `tool_choice` of the type allowed_tools."""
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


SWIM = {"type": "function", "function": {"name": "swim"}}


@pytest.mark.parametrize(("name", "is_call"), [("dive", True), ("swim", False)])
def test_allowed_tools_of_the_mode_auto(caller: Server, name: str, is_call: bool) -> None:
    """The model is told of the allowed tools, and a call of another is text."""
    message = chat(caller, tools=[TOOL, SWIM], tool_choice=allowed("auto", name))["choices"][0]["message"]
    assert ("tool_calls" in message) == is_call
    assert (message["content"] is None) == is_call
    assert ("swim" in prompt(caller)) != is_call


def test_allowed_tools_of_the_mode_required(caller: Server) -> None:
    """The grammar has the allowed tools."""
    chat(caller, tools=[TOOL, SWIM], tool_choice=allowed("required", "swim"), parallel_tool_calls=True)
    grammar = caller.engine.requests[-1].sampling.grammar
    assert grammar is not None
    one, several = json.loads(grammar.source)["anyOf"]
    assert one["properties"]["name"]["const"] == "swim"
    assert several["items"] == {"anyOf": [{"$ref": "#/anyOf/0"}]}


PERSON = {"$defs": {"n": {"type": "string"}}, "type": "object", "properties": {"name": {"$ref": "#/$defs/n"}}}


def test_a_call_or_json(caller: Server) -> None:
    """With a JSON format the output is a call or that JSON, whose references still hold; text that is none stays."""
    given = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    answer = chat(caller, tools=[TOOL], response_format=given, parallel_tool_calls=True)
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    grammar = caller.engine.requests[-1].sampling.grammar
    assert grammar is not None
    call, calls, person = json.loads(grammar.source)["anyOf"]
    assert call["properties"]["name"]["const"] == "dive"
    assert calls["type"] == "array"
    assert person["properties"]["name"]["$ref"] == "#/anyOf/2/$defs/n"
    caller.engine.says = '{"name": "Ann"}'
    assert chat(caller, tools=[TOOL], response_format=given)["choices"][0]["message"]["content"] == '{"name": "Ann"}'


def test_the_format_is_of_answers_without_calls(caller: Server) -> None:
    """A required call has its own grammar, and without tools to call the format is all."""
    given = {"tools": [TOOL], "response_format": {"type": "json_object"}}
    for choice, source in (("required", '"const":"dive"'), ("none", '{"type":"object"}')):
        chat(caller, **given, tool_choice=choice)
        grammar = caller.engine.requests[-1].sampling.grammar
        assert grammar is not None
        assert source in grammar.source


@pytest.mark.parametrize("says", [' {"name": "swim", "arguments": {}}', '{"a": 1}', "{", "fine", '{"name": "di'])
def test_text_that_is_no_call(chatting: Server, says: str) -> None:
    """With tool_choice auto any other output is text, also if it begins like a call; a stream loses nothing."""
    chatting.engine.says = says
    assert chat(chatting, tools=[TOOL])["choices"][0]["message"] == {
        "role": "assistant",
        "content": says,
        "refusal": None,
    }
    deltas = [event["choices"][0]["delta"] for event in chunks(chatting, tools=[TOOL])]
    assert "".join(delta.get("content", "") for delta in deltas) == says


def test_tool_choice_none(caller: Server) -> None:
    """`none` hides the tools from the model and treats its output as text."""
    assert chat(caller, tools=[TOOL], tool_choice="none")["choices"][0]["message"]["content"] == CALL
    assert "dive" not in prompt(caller)


@pytest.mark.parametrize("choice", ["dive", {"type": "function", "function": {"name": "dive"}}])
def test_a_named_call_is_constrained(caller: Server, choice: Any) -> None:
    """The grammar of the call is the tool's schema, with its references rewritten to their new place."""
    chat(caller, tools=[TOOL], tool_choice=choice, max_tokens=40)
    grammar = caller.engine.requests[-1].sampling.grammar
    assert grammar is not None
    assert grammar.kind == "json_schema"
    (call,) = json.loads(grammar.source)["anyOf"]
    assert call["properties"]["name"] == {"const": "dive"}
    assert call["properties"]["arguments"]["$ref"] == "#/anyOf/0/properties/arguments/$defs/x"
    assert "x" in call["properties"]["arguments"]["$defs"]
    assert caller.engine.requests[-1].sampling.end_token_ids == (0,)


def grammar_of(server: Server, **parameters: Any) -> dict[str, Any]:
    """The schema of the answer to a chat."""
    chat(server, max_tokens=40, **parameters)
    grammar = server.engine.requests[-1].sampling.grammar
    assert grammar is not None
    schema: dict[str, Any] = json.loads(grammar.source)
    return schema


def test_a_required_answer_may_be_several_calls(chatting: Server) -> None:
    """If calls may be parallel, `required` asks for one or more; each has its index. Else it asks for one."""
    chatting.engine.says = f"[{CALL}, {CALL}]"
    given: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": True}
    assert len(chat(chatting, **given)["choices"][0]["message"]["tool_calls"]) == 2
    choices = [event["choices"][0] for event in chunks(chatting, **given)]
    pieces = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    assert {piece["index"] for piece in pieces} == {0, 1}
    assert choices[-1]["finish_reason"] == "tool_calls"
    assert [each.get("type") for each in grammar_of(chatting, **given)["anyOf"]] == ["object", "array"]
    for may_be_parallel in (None, False):
        given["parallel_tool_calls"] = may_be_parallel
        assert [each["type"] for each in grammar_of(chatting, **given)["anyOf"]] == ["object"]


TGI_STYLE: list[dict[str, Any]] = [{"model": "tgi"}, {"tool_prompt": "Call one of these:"}]


@pytest.mark.parametrize("style", TGI_STYLE)
@pytest.mark.parametrize("choice", [{}, {"tool_choice": "auto"}])
def test_auto_of_a_request_in_the_style_of_tgi(caller: Server, style: Any, choice: Any) -> None:
    """TGI's name of the model or its `tool_prompt`: the answer is one call, or no_tool, of which the model is told."""
    calls = grammar_of(caller, tools=[TOOL], **style, **choice)["anyOf"]
    assert [call["properties"]["name"]["const"] for call in calls] == ["dive", "no_tool"]
    assert "Open ended response" in prompt(caller)
    assert chat(caller, tools=[TOOL], **style, **choice)["choices"][0]["finish_reason"] == "tool_calls"


def test_no_tool_is_content(chatting: Server) -> None:
    """The answer in words is content, in a stream as it comes, and ends with `stop`."""
    text = 'I "dive", and climb ☃ again.'
    chatting.engine.says = json.dumps({"name": "no_tool", "arguments": {"content": text}})
    choice = chat(chatting, tools=[TOOL], model="tgi")["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": text, "refusal": None}
    assert choice["finish_reason"] == "stop"
    choices = [event["choices"][0] for event in chunks(chatting, tools=[TOOL], model="tgi")]
    deltas = [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]
    assert len(deltas) > 5
    assert "".join(deltas) == text
    assert choices[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize("more", [{}, {"tools": [TOOL], "tool_choice": "none"}])
def test_no_tool_needs_tools(chatting: Server, more: Any) -> None:
    """Without tools, or with a choice of none, a request in TGI's style is free."""
    chat(chatting, model="tgi", **more)
    assert chatting.engine.requests[-1].sampling.grammar is None


def test_a_tool_of_that_name_is_the_clients(chatting: Server) -> None:
    """Beside a client's own no_tool there is none of TGI's."""
    own = {"type": "function", "function": {"name": "no_tool"}}
    chatting.engine.says = '{"name": "no_tool", "arguments": {}}'
    assert chat(chatting, tools=[own], model="tgi")["choices"][0]["finish_reason"] == "tool_calls"
    assert chatting.engine.requests[-1].sampling.grammar is None


def required_call(server: Server, **function: Any) -> dict[str, Any]:
    """The schema of a required call's arguments."""
    tool = {"type": "function", "function": {"name": "dive", **function}}
    chat(server, tools=[tool], tool_choice="required", max_tokens=40)
    grammar = server.engine.requests[-1].sampling.grammar
    assert grammar is not None
    (call,) = json.loads(grammar.source)["anyOf"]
    arguments: dict[str, Any] = call["properties"]["arguments"]
    return arguments


@pytest.mark.parametrize("function", [{}, {"parameters": {}}, {"parameters": None}, {"arguments": {}}])
def test_a_tool_without_parameters_takes_an_empty_object(caller: Server, function: dict[str, Any]) -> None:
    """OpenAI: leaving out `parameters` defines a function with an empty parameter list."""
    assert required_call(caller, **function) == {"type": "object", "properties": {}, "additionalProperties": False}


def test_arguments_are_the_listed_ones_behind_a_reference(caller: Server) -> None:
    """A definition is closed like the parameters themselves."""
    inner = {"type": "object", "properties": {"to": {"type": "string"}}}
    arguments = required_call(caller, parameters={"$defs": {"x": inner}, "$ref": "#/$defs/x"})
    assert arguments["$defs"]["x"] == {**inner, "additionalProperties": False}


def test_parameters_of_a_strict_tool_must_be_enforceable(caller: Server) -> None:
    """Without `strict` the answer has a warning."""
    function = {"name": "dive", "parameters": {"properties": {"a": {"type": "array", "uniqueItems": True}}}}
    body = {"messages": USER, "tool_choice": "required", "max_tokens": 40}
    lax, strict = (
        caller.client.post(
            "/v1/chat/completions", json={**body, "tools": [{"type": "function", "function": {**function, **more}}]}
        )
        for more in ({}, {"strict": True})
    )
    assert lax.status_code == 200, lax.text
    assert "uniqueItems" in lax.headers["x-peregrine-warning"]
    assert strict.status_code in (400, 422)
    assert "`strict`" in strict.json()["error"]["message"]
