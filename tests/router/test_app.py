"""The application: what all routes have in common, and which pages may call it."""

import httpx

from fakes import INFO, FakeEngine, Server, make_tokenizer, serve
from peregrine_router.api.openai.routes import OpenAiApi
from peregrine_router.api.platforms import PlatformApi
from peregrine_router.api.tgi.routes import TgiApi


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


def test_public_paths_are_routes() -> None:
    """Every path that an API declares public answers without a key; nothing else of that path does."""
    public = TgiApi.public_paths | OpenAiApi.public_paths | PlatformApi.public_paths
    with serve(FakeEngine(make_tokenizer()), api_key="k") as server:
        for method, path in public:
            assert server.client.request(method, path).status_code in (200, 405), (method, path)
        assert server.client.post("/", json={"inputs": "the"}).status_code == 401


def test_a_slash_too_many_is_no_redirect(server: Server) -> None:
    """A redirect would make a client send its prompt twice, so a route with a trailing slash is a 404."""
    assert server.client.post("/generate/", json={"inputs": "the"}).status_code == 404


def test_the_document_names_the_model(server: Server) -> None:
    """The OpenAPI document has the model's name in its summary."""
    assert INFO.model_id in server.client.get("/openapi.json").json()["info"]["summary"]
