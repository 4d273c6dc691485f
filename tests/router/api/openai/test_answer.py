"""Parts that OpenAI's two kinds of answers have in common."""

import json
import math
from typing import Any

import pytest

from fakes import Server
from peregrine_router.api.openai.answer import SMALLEST_LOGPROB, fingerprint, finish_reason, finite
from peregrine_router.request import Finished, FinishReason

BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "the", "model": "any", "temperature": 0},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "the"}], "model": "any", "temperature": 0},
}


@pytest.mark.parametrize("path", BODIES)
def test_frame(chatting: Server, path: str) -> None:
    """The answer and every chunk name the model, the server's version and a time; all chunks have one id."""
    whole = chatting.client.post(path, json=BODIES[path]).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *lines, done, end = chatting.client.post(path, json=BODIES[path] | options).text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    chunks: list[dict[str, Any]] = [json.loads(line.removeprefix("data: ")) for line in lines]
    for answer in (whole, *chunks):
        assert answer["model"] == "any"
        assert answer["system_fingerprint"] == fingerprint()
        assert answer["created"] > 0
    assert len({(chunk["id"], chunk["object"]) for chunk in chunks}) == 1
    assert chunks[-1]["usage"] == whole["usage"]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [(FinishReason.LENGTH, "length"), (FinishReason.EOS_TOKEN, "stop"), (FinishReason.STOP_SEQUENCE, "stop")],
)
def test_finish_reasons(reason: FinishReason, expected: str) -> None:
    """An end-of-text token and a stop sequence are both "stop"."""
    assert finish_reason(Finished(reason, "", 1)) == expected


@pytest.mark.parametrize("logprob", [None, math.nan, -math.inf, -1e5])
def test_logprobs_are_finite(logprob: float | None) -> None:
    """A log-probability that JSON cannot hold becomes OpenAI's smallest; others stay."""
    assert finite(logprob) == SMALLEST_LOGPROB
    assert finite(-0.5) == -0.5
