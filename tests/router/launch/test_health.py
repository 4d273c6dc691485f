"""`peregrine health` finds the server and tells whether it is healthy."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from peregrine_router.launch.health import health, port_of


class Answer(BaseHTTPRequestHandler):
    """200 to /health while `status` says so."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield server
    server.shutdown()
    server.server_close()


def command_line(path: Path, *arguments: str) -> Path:
    """A file like /proc/1/cmdline."""
    file = path / "cmdline"
    file.write_text("\0".join(["tini", "--", "peregrine", "serve", *arguments, ""]))
    return file


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_exit_code_is_the_servers_health(
    status: int, code: int, server: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 for a 200 and 1 for anything else."""
    monkeypatch.setattr(Answer, "status", status)
    assert health(command_line(tmp_path, "--port", str(server.server_port))) == code


def test_no_server_is_not_healthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says which port was asked."""
    assert health(command_line(tmp_path, "--port=1")) == 1
    assert capsys.readouterr().err.startswith("peregrine health: port 1: ")


def test_the_port_is_that_of_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag in any spelling goes before PORT, and PORT before the default."""
    monkeypatch.delenv("PORT", raising=False)
    assert port_of(["serve"]) == "3000"
    monkeypatch.setenv("PORT", "80")
    assert port_of(["serve"]) == "80"
    assert port_of(["serve", "-p", "81"]) == port_of(["--port=81"]) == port_of(["--port", "81", "--x"]) == "81"
