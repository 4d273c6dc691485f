"""Grammars that explode, against a real server: each is refused in one line, or followed, or fails its request."""

import time
from collections.abc import Callable, Iterator

import pytest

from exploding_grammars import CONSTRUCTIONS, SIZES, Json
from serving import ServerProcess
from untouched import untouched

pytestmark = pytest.mark.slow

ANSWER_SECONDS = 20.0
"""Generous: a grammar has 5 s to compile, on a machine that others share."""
MAX_KEPT_BYTES = 1500 * 10**6
"""The shard's cache of compiled grammars may take 1 GiB."""


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as server, untouched(server, MAX_KEPT_BYTES):
        yield server


@pytest.mark.parametrize("construction", CONSTRUCTIONS)
def test_a_grammar_that_explodes_harms_nobody(server: ServerProcess, construction: Callable[[int], Json]) -> None:
    """4xx with one line, an answer, or the error of generation; then another request is served at once."""
    for size in SIZES:
        start = time.monotonic()
        answer = server.generate("once", max_new_tokens=8, grammar=construction(size), do_sample=True, seed=size)
        assert time.monotonic() - start < ANSWER_SECONDS
        assert answer.status_code in (200, 422, 424), (size, answer.text)
        if answer.status_code != 200:
            line = answer.json()["error"]
            assert line.strip()
            assert "\n" not in line, line
        assert server.generate("once", max_new_tokens=1).status_code == 200
