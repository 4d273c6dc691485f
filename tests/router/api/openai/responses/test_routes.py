"""GET, DELETE, input_items and cancel of stored responses; keys; headers; counting."""

from collections.abc import Iterator
from typing import Any

import pytest

from fakes import FakeEngine, Server, make_tokenizer, serve
from peregrine_router.text.chat_template import Chat
from responding import PATH, respond, stream

each_route = pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")]
)


@pytest.fixture(scope="module")
def locked() -> Iterator[Server]:
    """A server with two keys."""
    tokenizer = make_tokenizer()
    chat = Chat(tokenizer, "{{ messages[0].content }}", {})
    with serve(FakeEngine(tokenizer), chat=chat, api_key="first,second") as server:
        server.client.headers["authorization"] = "Bearer first"
        yield server


def test_retrieve(chatting: Server) -> None:
    """A stored response is what was answered, or what its stream ended with."""
    answer = chatting.client.post(PATH, json={"input": "a"}).json()
    assert chatting.client.get(f"{PATH}/{answer['id']}").json() == answer
    last = stream(chatting)[-1].response
    assert chatting.client.get(f"{PATH}/{last.id}").json()["output"][0]["content"][0]["text"] == last.output_text


def test_a_stored_response_is_not_streamed(chatting: Server) -> None:
    """Replaying one is refused, with what to do."""
    answer = chatting.client.get(f"{PATH}/{respond(chatting).id}?stream=true")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stream")


def test_delete(chatting: Server) -> None:
    """A deleted response is gone; the one that continues it is not."""
    first = respond(chatting)
    second = respond(chatting, "why", previous_response_id=first.id)
    gone = chatting.client.delete(f"{PATH}/{first.id}")
    assert gone.json() == {"id": first.id, "object": "response", "deleted": True}
    assert chatting.client.get(f"{PATH}/{first.id}").status_code == 404
    assert chatting.client.delete(f"{PATH}/{first.id}").status_code == 404
    assert respond(chatting, "go on", previous_response_id=second.id).status == "completed"


def test_cancel(chatting: Server) -> None:
    """A complete response cannot be cancelled, in OpenAI's words."""
    answer = chatting.client.post(f"{PATH}/{respond(chatting).id}/cancel")
    assert answer.status_code == 400
    assert "Cannot cancel a synchronous response" in answer.json()["error"]["message"]


@each_route
def test_unknown_responses(chatting: Server, method: str, path: str) -> None:
    """Each route of one that is not stored is a 404 in OpenAI's words."""
    answer = chatting.client.request(method, f"{PATH}/resp_nothing{path}")
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (404, "invalid_request_error")
    assert error["message"] == "Response with id 'resp_nothing' not found."


@each_route
def test_another_keys_response_is_unknown(locked: Server, method: str, path: str) -> None:
    """A response is its key's: to others it is as if it did not exist."""
    id = respond(locked).id
    other = {"authorization": "Bearer second"}
    assert locked.client.request(method, f"{PATH}/{id}{path}", headers=other).status_code == 404
    answer = locked.client.post(PATH, json={"input": "a", "previous_response_id": id}, headers=other)
    assert answer.json()["error"]["code"] == "previous_response_not_found"
    assert locked.client.get(f"{PATH}/{id}").status_code == 200


def listed(server: Server, id: str, **query: Any) -> dict[str, Any]:
    """A page of input items."""
    answer = server.client.get(f"{PATH}/{id}/input_items", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_input_items(chatting: Server) -> None:
    """The items of the whole conversation before the response, the latest first unless asked otherwise."""
    first = respond(chatting)
    second = respond(chatting, "why", previous_response_id=first.id)
    page = listed(chatting, second.id)
    texts = [item["content"][0]["text"] for item in page["data"]]
    assert texts == ["why", " falcons dive", "the fox"]
    assert (page["object"], page["has_more"]) == ("list", False)
    assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
    assert listed(chatting, second.id, order="asc")["data"] == page["data"][::-1]


def test_pages_of_input_items(chatting: Server) -> None:
    """`limit` and `after` give all items, page by page."""
    id = respond(chatting, [{"role": "user", "content": str(number)} for number in range(5)]).id
    found: list[str] = []
    after: dict[str, str] = {}
    for _ in range(3):
        page = listed(chatting, id, limit=2, order="asc", **after)
        found += [item["content"][0]["text"] for item in page["data"]]
        after = {"after": page["last_id"]}
    assert found == list("01234")
    assert not page["has_more"]


@pytest.mark.parametrize(
    ("query", "status"), [({"limit": 0}, 400), ({"limit": 101}, 400), ({"order": "up"}, 400), ({"after": "msg_x"}, 404)]
)
def test_wrong_pages(chatting: Server, query: dict[str, Any], status: int) -> None:
    """A page that cannot be is refused."""
    assert chatting.client.get(f"{PATH}/{respond(chatting).id}/input_items", params=query).status_code == status


def test_headers_and_count(chatting: Server) -> None:
    """A response has the headers of generated text, and counts as one request of its tokens."""
    before = chatting.metrics()
    answer = chatting.client.post(PATH, json={"input": "a"})
    after = chatting.metrics()
    assert answer.headers["x-generated-tokens"] == str(answer.json()["usage"]["output_tokens"])
    assert after["tgi_request_success"] == before["tgi_request_success"] + 1
    assert chatting.client.post(PATH, json={"input": "a", "stream": True}).headers["x-compute-type"]
