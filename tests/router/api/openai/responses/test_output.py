"""Output items and their events, from pieces of text and of calls."""

import itertools

from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from peregrine_router.api.openai.answer_schemas import ChatLogprob
from peregrine_router.api.openai.call_reader import CallDelta
from peregrine_router.api.openai.responses.event_schemas import ResponseEvent
from peregrine_router.api.openai.responses.output import Output


def logprob(token: str) -> ChatLogprob:
    return {"token": token, "logprob": -1.0, "bytes": [], "top_logprobs": []}


def types(events: list[ResponseEvent]) -> list[str]:
    """The types of events, each of which OpenAI's client must accept."""
    for event in events:
        TypeAdapter(ResponseStreamEvent).validate_python(event)
    return [event["type"].removeprefix("response.") for event in events]


def test_an_item_ends_where_the_next_begins() -> None:
    """Text, a call and text again are three items, with events in that order."""
    output = Output(itertools.count())
    events = output.add(["a", CallDelta(0, "f", ""), CallDelta(0, None, "{}"), "b"], []) + output.end("completed")
    message = ["output_item.added", "content_part.added", "output_text.delta"]
    message += ["output_text.done", "content_part.done", "output_item.done"]
    call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]
    assert types(events) == [*message, *call, *message]
    assert [item["type"] for item in output.items()] == ["message", "function_call", "message"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_only_the_last_item_is_cut_off() -> None:
    """The others are complete."""
    output = Output(itertools.count())
    output.add([CallDelta(0, "f", "{}"), CallDelta(1, "g", "{")], [])
    output.end("incomplete")
    assert [item["status"] for item in output.items()] == ["completed", "incomplete"]


def test_each_event_names_its_item() -> None:
    """Events of the second item have its id and its index."""
    output = Output(itertools.count())
    output.add(["a"], [])
    events = output.add([CallDelta(0, "f", "{}")], [])
    (delta,) = (event for event in events if event["type"] == "response.function_call_arguments.delta")
    assert (delta["item_id"], delta["output_index"]) == (output.items()[1]["id"], 1)


def test_a_token_without_text_is_described_with_the_next() -> None:
    """Log-probabilities wait for the text that their token is a part of."""
    output = Output(itertools.count())
    assert output.add([""], [logprob("x")]) == []
    *_, delta = output.add(["é"], [logprob("y")])
    assert delta["type"] == "response.output_text.delta"
    assert [token["token"] for token in delta["logprobs"]] == ["x", "y"]


def test_tokens_of_calls_are_not_described() -> None:
    """The text behind a call has its own log-probabilities only."""
    output = Output(itertools.count())
    output.add([], [logprob("x")])
    output.add([CallDelta(0, "f", "{}")], [logprob("y")])
    *_, delta = output.add(["a"], [logprob("z")])
    assert delta["type"] == "response.output_text.delta"
    assert [token["token"] for token in delta["logprobs"]] == ["z"]
