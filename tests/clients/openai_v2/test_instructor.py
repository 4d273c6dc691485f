"""instructor's modes."""

import contextlib
from typing import Any

import instructor
import pytest
from instructor.core import IncompleteOutputException, InstructorRetryException
from openai import OpenAI

from clients.server import KEY, MODEL, Server
from clients.shapes import CHAT, Forecast, Weather

CLIENT = "instructor"
GIVEN: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": CHAT}],
    "max_tokens": 200,
    "max_retries": 1,
}


def _client(server: Server, mode: instructor.Mode) -> Any:
    return instructor.from_openai(OpenAI(base_url=server.v1, api_key=KEY), mode=mode)


def _check(server: Server, mode: instructor.Mode) -> None:
    client = _client(server, mode)
    assert isinstance(client.chat.completions.create(**GIVEN, response_model=Weather), Weather)
    assert isinstance(client.chat.completions.create(**GIVEN, response_model=Forecast), Forecast)


def test_tools_mode(server: Server) -> None:
    """A tool that must be called, instructor's default."""
    _check(server, instructor.Mode.TOOLS)


def test_strict_tools_mode(server: Server) -> None:
    """The same with a strict schema."""
    _check(server, instructor.Mode.TOOLS_STRICT)


def test_json_schema_mode(server: Server) -> None:
    """A response format."""
    _check(server, instructor.Mode.JSON_SCHEMA)


def test_responses_mode(server: Server) -> None:
    """A tool through /v1/responses."""
    client = _client(server, instructor.Mode.RESPONSES_TOOLS)
    given = {"model": MODEL, "input": CHAT, "max_output_tokens": 200, "max_retries": 1}
    assert isinstance(client.responses.create(**given, response_model=Weather), Weather)


def test_json_mode(server: Server) -> None:
    """Any JSON object; that it fits the schema is up to the model, and a small one does not do it."""
    answers: list[Any] = []
    client = _client(server, instructor.Mode.JSON)
    client.on("completion:response", answers.append)
    with contextlib.suppress(InstructorRetryException, IncompleteOutputException):
        client.chat.completions.create(**GIVEN, response_model=Weather)
    assert answers
    assert all(answer.choices[0].message.content.lstrip().startswith("{") for answer in answers)


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA])
def test_partial(server: Server, mode: instructor.Mode) -> None:
    """An object that is streamed field by field."""
    grown = list(_client(server, mode).chat.completions.create_partial(**GIVEN, response_model=Weather))
    assert grown[0].rains is None
    assert Weather.model_validate(grown[-1].model_dump())


def test_iterable(server: Server) -> None:
    """Several objects, streamed one by one."""
    found = []
    with contextlib.suppress(InstructorRetryException):
        for each in _client(server, instructor.Mode.TOOLS).chat.completions.create_iterable(
            **GIVEN, response_model=Weather
        ):
            found.append(each)
            if len(found) == 2:
                break
    assert all(isinstance(each, Weather) for each in found)
