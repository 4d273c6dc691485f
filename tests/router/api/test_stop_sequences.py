"""Stop sequences that name special tokens, on every route over real sockets."""

from collections.abc import Iterator
from typing import Any

import pytest
import tokenizers

from fakes import FakeEngine, Server, serve, train_backend
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.tokenizer import Tokenizer

IM_END = "<|im_end|>"


@pytest.fixture
def server() -> Iterator[Server]:
    """A server whose model writes a special token that is not the end of text."""
    backend = train_backend()
    backend.add_tokens([tokenizers.AddedToken(IM_END, special=True)])
    tokenizer = Tokenizer(backend, frozenset({0}))
    chat = Chat(tokenizer, "{{ messages[0].content }}", {})
    with serve(FakeEngine(tokenizer, says=f" falcons{IM_END} dive"), chat=chat) as server:
        yield server


def post(server: Server, path: str, **body: Any) -> dict[str, Any]:
    answer = server.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


@pytest.mark.parametrize("stop", [IM_END, f"s{IM_END}", f"{IM_END} di"])
def test_a_special_token_stops_on_openais_routes(stop: str, server: Server) -> None:
    """The text ends before the stop sequence, and the reason is `stop`."""
    completion = post(server, "/v1/completions", prompt="the", stop=[stop], max_tokens=20)["choices"][0]
    messages = [{"role": "user", "content": "the"}]
    chat = post(server, "/v1/chat/completions", messages=messages, stop=[stop], max_tokens=20)["choices"][0]
    expected = " falcons".removesuffix(stop.partition("<")[0])
    assert (completion["text"], completion["finish_reason"]) == (expected, "stop")
    assert (chat["message"]["content"], chat["finish_reason"]) == (expected, "stop")


@pytest.mark.parametrize("path", ["/generate", "/invocations"])
def test_a_special_token_stops_on_tgis_routes(path: str, server: Server) -> None:
    """The text holds what the tokens up to the stop sequence add, and the reason is `stop_sequence`."""
    parameters = {"stop": [IM_END], "details": True, "max_new_tokens": 20, "return_full_text": False}
    body: Any = post(server, path, inputs="the", parameters=parameters)
    answer = body[0] if isinstance(body, list) else body
    assert answer["generated_text"] == " falcons"
    assert answer["details"]["finish_reason"] == "stop_sequence"
    assert answer["details"]["tokens"][-1]["text"] == IM_END
