"""The error of a body that is JSON of the wrong shape."""

from typing import Any

import pytest

from fakes import Server

USER = [{"role": "user", "content": "a"}]


def message(server: Server, path: str, body: Any) -> str:
    error = server.client.post(path, json=body).json()["error"]
    return str(error["message"] if isinstance(error, dict) else error).removeprefix("Input validation error: ")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"prompt": ["a", [1]]}, "`prompt.1`: Input should be a valid string"),
        ({"prompt": "a", "stop": ["b", 3]}, "`stop.1`: Input should be a valid string"),
        ({"prompt": 3}, "`prompt`: Input should be a valid string"),
        ({"prompt": "a", "response_format": {}}, "`response_format.type`: Field required"),
        ([], "`body`: Input should be a valid dictionary or object to extract fields from"),
    ],
)
def test_the_form_that_got_furthest_is_reported(server: Server, body: Any, expected: str) -> None:
    """A value that may have several forms is named by its place in the body alone."""
    assert message(server, "/v1/completions", body) == expected


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "custom", "custom": {"name": "a"}}, "`tool_choice.type`: Input should be 'function'"),
        ({"type": "function"}, "`tool_choice.function`: Field required"),
    ],
)
def test_objects_of_several_forms(server: Server, choice: dict[str, Any], expected: str) -> None:
    """A choice of a tool is no text: the error is that of the object."""
    assert message(server, "/v1/chat/completions", {"messages": USER, "tool_choice": choice}) == expected


def test_bodies_of_several_forms(server: Server) -> None:
    """The names of the bodies that a route takes are none of the client's."""
    assert message(server, "/invocations", {"input": "a"}) == "`inputs`: Field required"
