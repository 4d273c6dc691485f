"""API keys: who may call, and whose requests share a tenant."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route

from fakes import INFO, FakeEngine, Server, make_tokenizer, serve
from peregrine_router.api.health import HealthApi
from peregrine_router.app import build_app
from peregrine_router.settings import Settings


@pytest.fixture
def locked(engine: FakeEngine) -> Iterator[Server]:
    with serve(engine, api_key="first,second") as server:
        yield server


def routes() -> list[tuple[str, str]]:
    """Every (method, path) of the app, the documentation's among them."""
    app = build_app(FakeEngine(make_tokenizer()), make_tokenizer(), Settings(), INFO)
    found = [(sorted(route.methods or {"GET"})[0], route.path) for route in app.routes if isinstance(route, Route)]
    found += [
        (method, route.path)
        for included in app.routes
        for route in getattr(getattr(included, "original_router", None), "routes", [])
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    ]
    return found


def test_every_route_but_liveness_wants_a_key(locked: Server) -> None:
    """Without a key every route of the app is a 401 in the shape of its family; those of liveness answer."""
    checked = 0
    for method, path in routes():
        answer = locked.client.request(method, path, json={} if method == "POST" else None)
        if (method, path) in HealthApi.public_paths:
            assert answer.status_code in (200, 204), path
            continue
        checked += 1
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        error = answer.json()["error"]
        assert isinstance(error, dict) == path.startswith("/v1/")
        assert not isinstance(error, dict) or error["code"] == "invalid_api_key"
    assert checked >= 15
    assert locked.client.get("/").status_code == 200
    assert locked.client.get("/nowhere").status_code == 401


def test_any_of_the_keys_opens(locked: Server) -> None:
    """Each key opens every route; the scheme in any case, the key in its own."""
    body = {"inputs": "the"}
    for header in ("Bearer first", "bearer second"):
        assert locked.client.post("/generate", json=body, headers={"authorization": header}).status_code == 200
    for header in ("Bearer First", "Basic first", "first", "Bearer first second", "Bearer first,second"):
        assert locked.client.post("/generate", json=body, headers={"authorization": header}).status_code == 401


def test_a_key_opens_what_its_scopes_name(engine: FakeEngine, tmp_path: Path) -> None:
    """A key of /metrics generates nothing and one of inference reads no metrics: 403, in the shape of the route."""
    file = tmp_path / "keys"
    file.write_text("watcher metrics\nclient infer\nold\nboss infer, metrics, admin\n")
    with serve(engine, api_key_file=str(file)) as server:

        def statuses(key: str) -> list[int]:
            headers = {"authorization": f"Bearer {key}"}
            answers = [server.client.get(path, headers=headers) for path in ("/metrics", "/v1/models", "/info")]
            answers.append(server.client.post("/generate", json={"inputs": "the"}, headers=headers))
            return [answer.status_code for answer in answers]

        assert statuses("watcher") == [200, 403, 403, 403]
        assert statuses("client") == [403, 200, 200, 200]
        assert statuses("old") == statuses("boss") == [200] * 4
        headers = {"authorization": "Bearer watcher"}
        refused = server.client.get("/v1/models", headers=headers).json()["error"]
        assert (refused["type"], refused["code"]) == ("permission_error", "forbidden")
        assert "scope infer in the file of --api-key-file" in refused["message"]
        assert server.client.post("/cancel/x", headers=headers).status_code == 403


def test_a_tenant_is_its_key(locked: Server) -> None:
    """Requests of one key share tenant and salt whatever the client says; another key has others, and no key shows."""
    for key in ("first", "first", "second"):
        body = {"prompt": "the", "max_tokens": 2, "user": "somebody"}
        headers = {"authorization": f"Bearer {key}", "x-request-id": "same"}
        assert locked.client.post("/v1/completions", json=body, headers=headers).status_code == 200
    tenants = [(request.tenant, request.cache_salt) for request in locked.engine.requests]
    assert tenants[0] == tenants[1]
    assert tenants[0][0] != tenants[2][0]
    assert tenants[0][1] != tenants[2][1]
    assert all(name and len(salt) == 32 for name, salt in tenants)
    assert hashlib.sha256(b"first").digest() != tenants[0][1]


def test_who_is_alone_is_nameless(engine: FakeEngine) -> None:
    """Without keys there is no tenant and no salt; with a single one there is nobody to share with, but a salt."""
    with serve(engine) as server:
        server.generate()
    with serve(engine, api_key="only") as server:
        server.client.post("/generate", json={"inputs": "the"}, headers={"authorization": "Bearer only"})
    assert [(request.tenant, len(request.cache_salt)) for request in engine.requests] == [("", 0), ("", 32)]


def test_a_salt_is_of_one_process(engine: FakeEngine) -> None:
    """The same key has another salt in another server, so it cannot be worked out from the key."""
    for _ in range(2):
        with serve(engine, api_key="only") as server:
            server.client.post("/generate", json={"inputs": "the"}, headers={"authorization": "Bearer only"})
    assert len({request.cache_salt for request in engine.requests}) == 2
