"""HEAD and OPTIONS of every route."""

import http.client

import pytest

from fakes import FakeEngine, Server, serve

GET_ROUTES = ("/", "/health", "/ping", "/info", "/metrics", "/v1/models", "/tokenizer_info", "/docs", "/openapi.json")


def test_head_is_get_without_its_body(server: Server) -> None:
    """Every route of GET answers HEAD with the same status and headers, and the connection serves the next request."""
    for path in GET_ROUTES:
        want, head = server.client.get(path), server.client.head(path)
        assert head.status_code == want.status_code == 200, path
        assert head.headers["content-type" if want.content else "vary" if path == "/" else "x-request-id"]
        assert not head.content
    assert server.client.get("/info").json()["model_id"]


def test_head_of_an_unhealthy_server(server: Server) -> None:
    """A load balancer that probes by HEAD sees the 503."""
    server.engine.is_healthy = False
    assert [server.client.head(path).status_code for path in ("/", "/health", "/ping")] == [503, 503, 503]


def test_head_sends_no_body(server: Server) -> None:
    """On the wire nothing follows the head of the answer, whose length is that of GET."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port))
    for _ in range(2):
        connection.request("HEAD", "/info")
        answer = connection.getresponse()
        assert answer.read() == b""
        assert int(answer.headers["content-length"]) > 100
    connection.close()


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/", "GET, HEAD, OPTIONS, POST"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("/v1/chat/completions", "OPTIONS, POST"),
        ("/cancel/some-id", "OPTIONS, POST"),
        ("/v1/models/x/y", "GET, HEAD, OPTIONS"),
        ("/docs", "GET, HEAD, OPTIONS"),
    ],
)
def test_options_lists_the_methods(server: Server, path: str, methods: str) -> None:
    """OPTIONS that is no preflight of a browser answers 204 with the path's methods."""
    answer = server.client.options(path)
    assert (answer.status_code, answer.headers["allow"]) == (204, methods)


def test_other_methods_are_refused(server: Server) -> None:
    """A method that a path does not take is a 405 that names it; HEAD and OPTIONS of no path are a 404."""
    for method in ("PUT", "DELETE", "PATCH", "TRACE"):
        answer = server.client.request(method, "/health")
        assert answer.status_code == 405
        assert answer.json()["error"] == f"/health does not take {method}, but GET"
    assert server.client.head("/generate").status_code == 405
    assert server.client.head("/nowhere").status_code == server.client.options("/nowhere").status_code == 404


def test_a_refusal_names_every_method_of_the_path(server: Server) -> None:
    """The root has a route for GET and one for POST: `Allow` has both, as OPTIONS answers."""
    answer = server.client.put("/")
    assert answer.json()["error"] == "/ does not take PUT, but GET and POST"
    assert answer.headers["allow"] == server.client.options("/").headers["allow"] == "GET, HEAD, OPTIONS, POST"


def test_keys_hold_for_head(engine: FakeEngine) -> None:
    """Without a key, HEAD answers where GET does, and nowhere else."""
    with serve(engine, api_key="k") as server:
        statuses = [server.client.head(path).status_code for path in ("/health", "/", "/info", "/metrics")]
    assert statuses == [200, 200, 401, 401]
