"""lm_eval's scores through the server, item by item, beside those of its own transformers backend in float32."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.evaluation.harness import TASKS, Harness, Scores, write_data
from clients.server import DEMO, KEY, MODEL, Server

pytestmark = pytest.mark.timeout(1200)

CLIENT = "lm_eval"
TOLERANCE = 1e-3
WINDOW = 2046
"""lm_eval's API models keep two of their 2048 tokens free, and so split a document here; transformers is told to."""
IDS: dict[str, Any] = {"tokenizer": DEMO}
STRINGS: dict[str, Any] = {"tokenizer": DEMO, "tokenized_requests": False}
CONCURRENT: dict[str, Any] = {"num_concurrent": 4}
RUNS = {
    "ids": IDS,
    "ids in batches": IDS | {"batch_size": 8},
    "ids concurrently": IDS | CONCURRENT,
    "strings": STRINGS,
    "strings in batches": STRINGS | {"batch_size": 8},
    "strings in concurrent batches": STRINGS | CONCURRENT | {"batch_size": 8},
    "the server's tokenizer": {"tokenizer_backend": "remote", "auth_token": KEY},
}


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """The harness in a folder with the tasks' data."""
    harness, before = Harness(tmp_path_factory.mktemp("lm_eval")), Path.cwd()
    write_data(harness.folder)
    os.chdir(harness.folder)
    yield harness
    os.chdir(before)


@pytest.fixture(scope="module")
def expected(harness: Harness) -> Scores:
    """The scores of transformers."""
    return harness.run("hf", *TASKS, "documents", pretrained=DEMO, dtype="float32", max_length=WINDOW)


@pytest.fixture(scope="module", params=RUNS.values(), ids=RUNS)
def scores(request: pytest.FixtureRequest, harness: Harness, server: Server) -> Scores:
    """The scores through /v1/completions."""
    return harness.run("local-completions", base_url=f"{server.v1}/completions", model=MODEL, **request.param)


def test_multiple_choice(scores: Scores, expected: Scores) -> None:
    """Each choice's log-likelihood, and whether it is what the model would have written."""
    for found, wanted in zip(scores["continuation"], expected["continuation"], strict=True):
        assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], abs=TOLERANCE, rel=0)
        assert [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in wanted]


def test_rolling_log_likelihood(scores: Scores, expected: Scores) -> None:
    """A whole text's log-likelihood, its first token included."""
    for found, wanted in zip(scores["paragraphs"], expected["paragraphs"], strict=True):
        assert found == pytest.approx(wanted, abs=TOLERANCE, rel=0)


def test_generate_until(scores: Scores, expected: Scores) -> None:
    """Greedy text up to a stop sequence."""
    assert scores["next_words"] == expected["next_words"]


def test_rolling_over_several_windows(harness: Harness, server: Server, expected: Scores) -> None:
    """A document longer than the model's context."""
    given = {"base_url": f"{server.v1}/completions", "model": MODEL, **IDS}
    found = harness.run("local-completions", "documents", **given)
    assert found["documents"][0] == pytest.approx(expected["documents"][0], abs=TOLERANCE, rel=0)


def test_chat_generate_until(harness: Harness, server: Server) -> None:
    """local-chat-completions writes what transformers writes after the model's chat template."""
    wanted = harness.run("hf", "next_words", is_chat=True, pretrained=DEMO, dtype="float32")
    given = {"base_url": f"{server.v1}/chat/completions", "model": MODEL, "eos_string": "<|endoftext|>"}
    for run in ({}, CONCURRENT):
        assert harness.run("local-chat-completions", "next_words", is_chat=True, **given, **run) == wanted
