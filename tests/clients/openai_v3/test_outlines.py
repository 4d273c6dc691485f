"""outlines' remote models: OpenAI's, TGI's, vLLM's and SGLang's."""

from collections.abc import Callable
from typing import Any, Literal

import outlines
import pytest
from huggingface_hub import InferenceClient
from openai import OpenAI
from outlines.types import Regex
from pydantic import ValidationError

from clients.server import KEY, MODEL, Server
from clients.shapes import CHAT, Weather

CLIENT = "outlines"
ANSWER = Literal["yes", "no"]


def _openai(make: Callable[[OpenAI, str], Any]) -> Callable[[Server], Any]:
    return lambda server: make(OpenAI(base_url=server.v1, api_key=KEY), MODEL)


def _tgi(server: Server) -> Any:
    return outlines.from_tgi(InferenceClient(base_url=server.url, token=KEY))


OPENAI, VLLM, SGLANG = map(_openai, (outlines.from_openai, outlines.from_vllm, outlines.from_sglang))
LIMIT = {OPENAI: "max_tokens", VLLM: "max_tokens", SGLANG: "max_tokens", _tgi: "max_new_tokens"}


def _generate(make: Callable[[Server], Any], server: Server, kind: Any = None) -> str:
    options = {"return_full_text": False} if make is _tgi else {}
    answer: str = make(server)(CHAT, kind, **{LIMIT[make]: 100}, **options)
    return answer


def _check(make: Callable[[Server], Any], server: Server) -> None:
    assert _generate(make, server)
    Weather.model_validate_json(_generate(make, server, Weather))


def test_openai_model(server: Server) -> None:
    """Text, and a pydantic class."""
    _check(OPENAI, server)


def test_tgi_model(server: Server) -> None:
    """Text, a pydantic class, a choice and a regular expression."""
    _check(_tgi, server)
    assert _generate(_tgi, server, ANSWER) in ("yes", "no")
    assert _generate(_tgi, server, Regex("[0-9]{3}")).isdigit()


@pytest.mark.xfail(raises=ValidationError, reason="the client keeps the text of the end-of-text token, which TGI sends")
def test_tgi_stream(server: Server) -> None:
    """A pydantic class, streamed."""
    stream = _tgi(server).stream(CHAT, Weather, max_new_tokens=100, return_full_text=False)
    Weather.model_validate_json("".join(stream))


def test_sglang_model(server: Server) -> None:
    """Text, and a pydantic class, through a response format."""
    _check(SGLANG, server)


def test_vllm_text(server: Server) -> None:
    """Text alone: what vLLM's model adds to OpenAI's fields is not known here."""
    assert _generate(VLLM, server)


@pytest.mark.xfail(raises=ValidationError, reason="vLLM's field `structured_outputs` is ignored: use the OpenAI model")
def test_vllm_structured_output(server: Server) -> None:
    """A pydantic class."""
    Weather.model_validate_json(_generate(VLLM, server, Weather))


@pytest.mark.xfail(raises=AssertionError, reason="SGLang's field `regex` is ignored: use the TGI model")
def test_sglang_regular_expression(server: Server) -> None:
    """A choice."""
    assert _generate(SGLANG, server, ANSWER) in ("yes", "no")
