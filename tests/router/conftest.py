from collections.abc import Iterator

import pytest

from fakes import FakeEngine, Server, make_tokenizer, serve
from peregrine_router.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


@pytest.fixture
def engine(tokenizer: Tokenizer) -> FakeEngine:
    return FakeEngine(tokenizer)


@pytest.fixture
def server(engine: FakeEngine) -> Iterator[Server]:
    with serve(engine) as server:
        yield server
