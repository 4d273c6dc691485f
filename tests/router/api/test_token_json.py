"""JSON in pieces."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import make_tokenizer
from peregrine_router.api import token_json
from peregrine_router.api.token_json import json_list, json_object, json_text, span_list, token_count


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_lists(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their length, the pieces are one list."""
    monkeypatch.setattr(token_json, "PIECE_TOKENS", 3)
    assert json.loads(b"".join(json_list(range(count)))) == list(range(count))


@given(st.text(max_size=12))
def test_texts(text: str) -> None:
    """Wherever a text is cut, the pieces are one string."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_json, "PIECE_CHARACTERS", 3)
        assert json.loads(b"".join(json_text(text))) == text


def test_answers() -> None:
    """TGI's list of tokens, vLLM's object, and objects of both are JSON."""
    tokenizer, text = make_tokenizer(), "the \u00e9 fox"
    spans, ids = tokenizer.encode_spans(text), tokenizer.encode(text)
    tokens = json.loads(b"".join(json_object(a=span_list(text, spans), b=json_text(text))))
    assert [token["id"] for token in tokens["a"]] == ids
    assert tokens["b"] == text
    counted = json.loads(b"".join(token_count(ids, 80, tokenizer)))
    assert (counted["count"], counted["max_model_len"], counted["tokens"]) == (len(ids), 80, ids)
    assert len(counted["token_strs"]) == len(ids)
    assert "token_strs" not in json.loads(b"".join(token_count(ids, 80, None)))
