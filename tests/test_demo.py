"""The demo model answers a newcomer's first messages; its training dialogues are clean and leave those out."""

import importlib
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peregrine_router.launch.model_files import demo_path
from serving import ServerProcess

SCRIPTS = Path(__file__).parents[1] / "scripts" / "demo"
EXPECTED = {
    "Who are you?": "Falcon|language model",
    "Tell me a story.": "lived|was",
    "Who wrote Persuasion?": "Jane Austen",
    "What is the capital of France?": "not|nothing|beyond",
}


@pytest.fixture(scope="module")
def make() -> Any:
    """The module that makes the training dialogues."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module("dialogues.make")
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as server:
        yield server


def test_the_first_messages_are_forty_and_no_dialogue_has_one(make: Any) -> None:
    """Not in other cases, with other punctuation or more politeness either; nor one of the development list."""
    lists = [{make.normalize(text) for _, text in make.read_messages(name)} for name in make.KEPT_OUT]
    assert len(lists[0]) == 40
    assert not lists[0] & lists[1]
    dialogues = [turns for _, turns in itertools.islice(make.Talk(0).dialogues(), 3000)]
    said = {make.normalize(message) for turns in dialogues for message in turns[::2]}
    assert len(said) > 2000
    assert not said & (lists[0] | lists[1])


@pytest.mark.parametrize(
    "message", ["Hey, who are you?", "WHO ARE YOU", "who are you, please?", "What's your favorite book"]
)
def test_a_first_message_in_another_dress_is_kept_out_too(make: Any, message: str) -> None:
    assert make.Talk(0).is_kept_out(message)


def test_dialogues_have_no_slot_or_alternative_left(make: Any) -> None:
    """All patterns are filled in what the assistant says, and every dialogue ends with the assistant."""
    for _, turns in itertools.islice(make.Talk(1).dialogues(), 3000):
        assert len(turns) % 2 == 0
        for answer in turns[1::2]:
            assert not re.search(r"[<>{}|]|  ", answer), answer
            assert answer[-1] in '.!?"', answer


def test_the_demo_has_a_sampling_default() -> None:
    """Cool enough that its sentences hold together."""
    assert json.loads((demo_path() / "generation_config.json").read_text())["temperature"] < 0.7


@pytest.mark.slow
@pytest.mark.parametrize(("message", "pattern"), EXPECTED.items())
def test_a_first_message_gets_an_answer_of_its_kind(server: ServerProcess, message: str, pattern: str) -> None:
    """At default parameters; the answer ends by itself."""
    body = {"model": "falcon", "messages": [{"role": "user", "content": message}], "seed": 1}
    choice = server.client.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert re.search(pattern, choice["message"]["content"])
    assert choice["finish_reason"] == "stop"
