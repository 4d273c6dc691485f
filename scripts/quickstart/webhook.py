"""The person on call: a webhook that remembers which alerts it was told of."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Self


class Webhook:
    """Listens on loopback until its block ends."""

    def __init__(self) -> None:
        self.received: set[tuple[str, str]] = set()
        """(alert, `firing` or `resolved`)."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.received))
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(received: set[tuple[str, str]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            received.update((alert["labels"]["alertname"], alert["status"]) for alert in body["alerts"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Silent: the steps say what arrived."""

    return Handler
