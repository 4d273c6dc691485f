"""Tokenization is admitted, cancelled with its client, and sent as it is read."""

import socket
import threading
import time

import pytest

from fakes import FakeEngine, serve, wait_until
from peregrine_router.text.tokenizer import Tokenizer

TEXT = "the fox " * 20_000


class SlowTokenizer(Tokenizer):
    """A tokenizer that waits until it is told to go on."""

    may_go_on = threading.Event()
    num_begun = 0

    def encode(self, text: str, **options: bool) -> list[int]:
        """See Tokenizer."""
        self.num_begun += 1
        assert self.may_go_on.wait(10)
        return super().encode(text, **options)


def test_a_long_answer_is_whole(engine: FakeEngine) -> None:
    """As many tokens as there are, in one JSON list, and the permit is free afterwards."""
    with serve(engine, max_concurrent_requests=1) as server:
        for _ in range(2):
            tokens = server.client.post("/tokenize", json={"inputs": TEXT}).json()
            assert [token["id"] for token in tokens] == engine.tokenizer.encode(TEXT)
        assert (
            server.client.post("/detokenize", json={"tokens": [token["id"] for token in tokens]}).json()["text"] == TEXT
        )


def test_no_more_are_admitted_than_requests(engine: FakeEngine) -> None:
    """A tokenization counts as a request in the server: over the limit it is answered 429."""
    engine.tokenizer = SlowTokenizer(engine.tokenizer._backend, frozenset({0}))
    with serve(engine, max_concurrent_requests=1) as server:
        first = threading.Thread(target=server.client.post, args=("/tokenize",), kwargs={"json": {"prompt": "the"}})
        first.start()
        wait_until(lambda: engine.tokenizer.num_begun)
        for path, body in (("/tokenize", {"inputs": "a"}), ("/detokenize", {"tokens": [1]})):
            answer = server.client.post(path, json=body)
            assert answer.status_code == 429, path
            assert int(answer.headers["retry-after"]) >= 1
        SlowTokenizer.may_go_on.set()
        first.join()
        assert server.client.post("/tokenize", json={"inputs": "a"}).status_code == 200


@pytest.mark.parametrize("reads", [False, True])
def test_a_client_that_leaves_or_does_not_read_frees_its_permit(engine: FakeEngine, reads: bool) -> None:
    """Its answer is made no further, and its connection is closed."""
    with serve(engine, max_concurrent_requests=1, slow_client_timeout=0.2) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            body = b'{"inputs": "%s"}' % TEXT.encode()
            head = b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            connection.sendall(head % len(body) + body)
            if reads:
                connection.recv(1000)
                connection.close()
            wait_until(lambda: server.client.post("/tokenize", json={"inputs": "a"}).status_code == 200)
            time.sleep(0.01)
