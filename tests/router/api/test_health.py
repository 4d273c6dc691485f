"""Health checks, and the pages of a browser."""

from dataclasses import replace

import pytest

from fakes import INFO, FakeEngine, Server, serve

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize("path", ["/health", "/ping", "/"])
def test_health(server: Server, path: str) -> None:
    """The health routes answer 200 if the server can generate tokens, else 503."""
    assert server.client.get(path).status_code == 200
    server.engine.is_healthy = False
    answer = server.client.get(path)
    assert answer.status_code == 503
    assert answer.json() == {"error": "unhealthy", "error_type": "healthcheck"}


def test_a_browser_gets_a_page(engine: FakeEngine) -> None:
    """GET / of a browser names the model, as text, and leads to the documentation; a probe gets an empty body."""
    with serve(engine, replace(INFO, model_id="<b>&")) as server:
        page, probe = server.client.get("/", headers=BROWSER), server.client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "<h1>&lt;b&gt;&amp;</h1>" in page.text
    assert 'href="/docs"' in page.text
    assert probe.content == b""
    assert page.headers["vary"].startswith("Accept")
    assert probe.headers["vary"].startswith("Accept")


def test_a_browser_sees_the_health(server: Server) -> None:
    """The page of a server that cannot generate tokens is a 503: monitors accept HTML, too."""
    server.engine.is_healthy = False
    assert server.client.get("/", headers=BROWSER).status_code == 503


def test_liveness_is_of_the_router_alone(engine: FakeEngine) -> None:
    """GET /livez needs no key, and is 200 though no token can be made: to restart the router would not help."""
    engine.is_healthy = False
    with serve(engine, api_key="k") as server:
        assert server.client.get("/health").status_code == 503
        assert server.client.get("/livez").status_code == 200


def test_no_icon(engine: FakeEngine) -> None:
    """GET /favicon.ico needs no key, is no error, and is asked for once a day."""
    with serve(engine, api_key="k") as server:
        answer = server.client.get("/favicon.ico")
    assert answer.status_code == 204
    assert "max-age" in answer.headers["cache-control"]
