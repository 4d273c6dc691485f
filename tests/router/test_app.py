"""The application: what all routes have in common, and which pages may call it."""

import httpx
import pytest
from huggingface_hub import InferenceClient

from fakes import EOS, INFO, FakeEngine, Server, make_tokenizer, serve
from peregrine_router.api.health import HealthApi
from peregrine_router.app import OPENAPI_PATHS


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


@pytest.mark.parametrize("header", ["x-stainless-os", "openai-organization", "x-request-timeout", "user-agent"])
def test_headers_of_sdks(server: Server, header: str) -> None:
    """A page may send any header: SDKs in browsers add their own, and the whole request fails for one refused."""
    headers = {"origin": "https://a.example", "access-control-request-method": "POST"}
    asked = f"authorization,content-type,{header}"
    answer = server.client.options("/v1/completions", headers=headers | {"access-control-request-headers": asked})
    assert answer.status_code == 200
    assert header in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize("given", ["/falcon", "falcon/"])
@pytest.mark.parametrize("prefix", ["", "/falcon"], ids=["stripped", "left on"])
def test_a_prefix(engine: FakeEngine, given: str, prefix: str) -> None:
    """Behind a proxy that publishes the server under a path, each route answers whether the proxy strips it or not; the
    documents name it, and neither the key nor the shape of errors gets lost."""
    with serve(engine, root_path=given, api_key="k") as server:
        client, key = server.client, {"authorization": "Bearer k"}
        assert client.get(f"{prefix}/health").status_code == 200
        assert client.get(f"{prefix}/v1/models").json()["error"]["type"]
        assert client.post(f"{prefix}/v1/completions", json={}, headers=key).json()["error"]["type"]
        assert client.get(f"{prefix}/v1/models", headers=key).json()["object"] == "list"
        assert client.get(f"{prefix}/docs", headers=key).status_code == 200
        assert 'href="/falcon/docs"' in client.get(f"{prefix}/", headers={"accept": "text/html"}).text
        for path in OPENAPI_PATHS:
            assert client.get(prefix + path, headers=key).json()["servers"] == [{"url": "/falcon"}]


def test_the_prefix_itself_is_the_root(engine: FakeEngine) -> None:
    """huggingface_hub, given the address of the prefix, posts to it without a slash; its events are whole, too."""
    engine.says = "a\u2028b\u0085c\u2029d"
    with serve(engine, root_path="/falcon") as server:
        client = InferenceClient(f"{server.url}/falcon")
        assert "".join(client.text_generation("the", stream=True)) == engine.says + EOS


def test_a_path_that_only_begins_like_the_prefix(engine: FakeEngine) -> None:
    """/falconry is not under /falcon."""
    with serve(engine, root_path="/falcon") as server:
        assert server.client.get("/falconry/health").status_code == 404


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_a_prefix_that_begins_routes(engine: FakeEngine, prefix: str) -> None:
    """Under --root-path /v1 each route answers whether the proxy strips that or not."""
    with serve(engine, root_path="/v1") as server:
        assert server.client.get(f"{prefix}/v1/models").json()["object"] == "list"
        assert server.client.get(f"{prefix}/v1/models/{INFO.model_id}").json()["id"] == INFO.model_id
        assert server.client.post(f"{prefix}/v1/completions", json={"prompt": "the"}).status_code == 200
        assert server.client.get(f"{prefix}/health").status_code == 200
        assert server.client.get(f"{prefix}/v1/nowhere").status_code == 404


def test_public_paths_are_routes() -> None:
    """Every path that an API declares public answers without a key; nothing else of that path does."""
    with serve(FakeEngine(make_tokenizer()), api_key="k") as server:
        for method, path in HealthApi.public_paths:
            assert server.client.request(method, path).status_code in (200, 204), (method, path)
        assert server.client.post("/", json={"inputs": "the"}).status_code == 401


def test_a_slash_too_many_is_no_redirect(server: Server) -> None:
    """A redirect would make a client send its prompt twice, so a route with a trailing slash is a 404."""
    assert server.client.post("/generate/", json={"inputs": "the"}).status_code == 404


def test_the_document_names_the_model(server: Server) -> None:
    """The OpenAPI document has the model's name in its summary."""
    assert INFO.model_id in server.client.get("/openapi.json").json()["info"]["summary"]
