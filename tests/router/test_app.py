"""The app as a whole: which pages may call it."""

import httpx

from fakes import FakeEngine, Server, serve


def preflight(server: Server, origin: str) -> httpx.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    return server.client.options("/generate", headers=headers)


def test_origins(engine: FakeEngine) -> None:
    """Only pages of the origins that were named may call; browsers ask without a key."""
    with serve(engine, cors_allow_origin="https://a.example,https://b.example", api_key="k") as server:
        assert preflight(server, "https://b.example").headers["access-control-allow-origin"] == "https://b.example"
        assert "access-control-allow-origin" not in preflight(server, "https://c.example").headers
    with serve(engine) as server:
        assert preflight(server, "https://c.example").headers["access-control-allow-origin"] == "*"
