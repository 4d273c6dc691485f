"""Text to token ids and back."""

from typing import Any

import pytest

from fakes import EOS, FakeEngine, Server, serve, train_backend
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.tokenizer import Tokenizer

TEXT = f"the fox é😀{EOS}"


def post(server: Server, path: str, **body: Any) -> Any:
    answer = server.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_tokenize(server: Server) -> None:
    """POST /tokenize returns each token's id, text and byte offsets; special tokens in the text are plain text."""
    text = f"the é{EOS}"
    tokens = post(server, "/tokenize", inputs=text)
    assert all(text.encode()[token["start"] : token["stop"]].decode() == token["text"] for token in tokens)
    assert [token["id"] for token in tokens] == server.engine.tokenizer.encode(text)
    assert 0 not in [token["id"] for token in tokens]


@pytest.mark.parametrize("body", [{}, {"inputs": ""}, {"inputs": None}, {"inputs": "a\0"}, {"prompt": 1}])
def test_no_text(server: Server, body: dict[str, Any]) -> None:
    """A text that is missing, empty or not a text is refused."""
    assert server.client.post("/tokenize", json=body).status_code == 422


def test_tokenize_as_vllm(server: Server) -> None:
    """With `prompt` the answer is vLLM's: ids, their number and the model's length; special tokens are tokens."""
    answer = post(server, "/tokenize", model="x", prompt=TEXT, return_token_strs=True, add_special_tokens=False)
    assert answer["tokens"][-1] == 0
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    assert answer["max_model_len"] == 80
    assert answer["token_strs"][0] == "the"
    assert post(server, "/tokenize", prompt="")["count"] == 0


def test_tokenize_a_chat(engine: FakeEngine) -> None:
    """With `messages` the answer is vLLM's too: the tokens of the prompt that the model would get, tools included."""
    template = "{{ tools }}{% for m in messages %}{{ eos_token }}{{ m.content }}{% endfor %}"
    with serve(engine, chat=Chat(engine.tokenizer, template, {"eos_token": EOS})) as server:
        messages = [{"role": "user", "content": f"the{EOS}"}]
        answer = post(server, "/tokenize", model="x", messages=messages, return_token_strs=True)
        assert answer["tokens"].count(0) == 1
        assert "".join(answer["token_strs"]) == f"None{EOS}the{EOS}"
        assert (answer["count"], answer["max_model_len"]) == (len(answer["tokens"]), 80)
        tool = {"type": "function", "function": {"name": "dive"}}
        assert post(server, "/tokenize", messages=messages, tools=[tool])["count"] > answer["count"]
        assert server.client.post("/tokenize", json={"messages": []}).status_code == 422


def test_a_chat_needs_a_template(server: Server) -> None:
    """A base model's is refused as by /v1/chat/completions."""
    answer = server.client.post("/tokenize", json={"messages": [{"role": "user", "content": "a"}]})
    assert answer.status_code == 422
    assert "no chat template" in answer.json()["error"]


def test_detokenize_inverts_tokenize(server: Server) -> None:
    """The text of a prompt's tokens is the prompt, special tokens included unless they are to be left out."""
    ids = post(server, "/tokenize", prompt=TEXT)["tokens"]
    assert post(server, "/detokenize", model="x", tokens=ids) == {"prompt": TEXT, "text": TEXT}
    assert post(server, "/detokenize", tokens=ids, skip_special_tokens=True)["text"] == TEXT.removesuffix(EOS)
    assert post(server, "/detokenize", tokens=[])["prompt"] == ""


@pytest.mark.parametrize("tokens", [None, "a", [-1], [2**32], [1.5], ["1"], [320], [True], [[1]]])
def test_bad_ids(server: Server, tokens: Any) -> None:
    """Ids that are none, or beyond the vocabulary, are refused in TGI's shape."""
    answer = server.client.post("/detokenize", json={"tokens": tokens})
    assert answer.status_code == 422
    assert answer.json()["error_type"] == "validation"


def test_limits_and_keys(engine: FakeEngine) -> None:
    """The routes take JSON of at most --payload-limit bytes, from holders of a key."""
    with serve(engine, api_key="k", payload_limit=1000) as server:
        assert server.client.post("/detokenize", json={"tokens": [1]}).status_code == 401
        assert server.client.get("/tokenizer_info").status_code == 401
        server.client.headers["authorization"] = "Bearer k"
        assert server.client.post("/detokenize", json={"tokens": [1] * 1000}).status_code == 413
        assert server.client.post("/detokenize", content="{}").status_code == 415


def test_tokenizer_info(engine: FakeEngine) -> None:
    """GET /tokenizer_info has tokenizer_config.json's fields, special tokens as strings, the template, and no path."""
    config = {"model_max_length": 9, "eos_token": {"content": EOS}, "name_or_path": "/home/me", "vocab_file": "/v"}
    engine.tokenizer = Tokenizer(train_backend(), frozenset({0}), config)
    with serve(engine, chat=Chat(engine.tokenizer, "{{ messages }}", {"eos_token": EOS})) as server:
        assert server.client.get("/tokenizer_info").json() == {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 9,
            "eos_token": EOS,
            "chat_template": "{{ messages }}",
        }


def test_a_model_without_template_has_info(server: Server) -> None:
    """A base model's information has no chat template."""
    assert server.client.get("/tokenizer_info").json() == {"tokenizer_class": "PreTrainedTokenizerFast"}
