from collections.abc import Iterator
from dataclasses import replace

import pytest

from chats import CALL, TEMPLATE
from fakes import EOS, INFO, FakeEngine, Server, serve
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def started(tokenizer: Tokenizer) -> Iterator[Server]:
    info = replace(INFO, max_input_tokens=500, max_total_tokens=600)
    chat = Chat(tokenizer, TEMPLATE, {"eos_token": EOS}, ("\nu",))
    with serve(FakeEngine(tokenizer), info, chat) as server:
        yield server


@pytest.fixture
def chatting(started: Server) -> Server:
    """A model with a chat template."""
    started.engine.says = " falcons dive"
    return started


@pytest.fixture
def caller(chatting: Server) -> Server:
    """A model that calls a tool."""
    chatting.engine.says = CALL
    return chatting
