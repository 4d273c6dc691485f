"""The OpenAPI document."""

import json
import re
from typing import Any

import pytest

from fakes import Server


def test_documentation(server: Server) -> None:
    """GET /docs works and every field of a request is described there."""
    assert server.client.get("/docs").status_code == 200
    api = server.client.get("/openapi.json").json()
    assert {"/", "/generate", "/generate_stream", "/info", "/health", "/metrics"} <= set(api["paths"])
    fields = api["components"]["schemas"]["GenerateParameters"]["properties"]
    assert all(field["description"] for field in fields.values())
    assert "GenerateResponse" in api["components"]["schemas"]
    assert server.client.get("/api-doc/openapi.json").json() == api


def test_documentation_is_complete(server: Server) -> None:
    """Every route of the contract is described, each field of a body by words or an example."""
    api = server.client.get("/openapi.json").json()
    routes = {
        "post": "/ /generate /generate_stream /invocations /vertex /tokenize /detokenize /chat_tokenize "
        "/v1/completions /v1/chat/completions /v1/responses /v1/responses/{id}/cancel /cancel/{id}",
        "get": "/ /info /health /ping /metrics /tokenizer_info /v1/models /v1/models/{id} /v1/responses/{id} "
        "/v1/responses/{id}/input_items",
        "delete": "/v1/responses/{id}",
    }
    for method, paths in routes.items():
        for path in paths.split():
            operation = api["paths"][path][method]
            assert operation["description"]
            assert operation["responses"]["200"]["description"]
    for name in (
        "GenerateParameters",
        "CompletionRequest",
        "ChatRequest",
        "Message",
        "Function",
        "ResponseRequest",
        "InputItem",
    ):
        for field, described in api["components"]["schemas"][name]["properties"].items():
            assert {"description", "examples", "$ref", "const", "anyOf"} & set(described), (name, field)
    assert {"401", "413", "415", "422", "429", "500"} <= set(api["paths"]["/generate"]["post"]["responses"])


def test_invalid_input_has_the_status_of_its_route(server: Server) -> None:
    """It is a 400 under /v1 and a 422 elsewhere, and no route describes both."""
    for path, operations in server.client.get("/openapi.json").json()["paths"].items():
        for operation in operations.values():
            described = {"400", "422"} & operation["responses"].keys()
            assert described <= ({"400"} if path.startswith("/v1/") else {"422"}), path


def test_errors_have_the_shape_of_their_route(server: Server) -> None:
    """Errors under /v1 are documented in OpenAI's shape, all others in TGI's."""
    for path, operations in server.client.get("/openapi.json").json()["paths"].items():
        for operation in operations.values():
            if "401" in operation["responses"]:
                (content,) = operation["responses"]["401"]["content"].values()
                expected = "OpenAiErrorResponse" if path.startswith("/v1/") else "ErrorResponse"
                assert content["schema"]["$ref"].endswith(f"/{expected}"), path


def resolve(api: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema that a reference names."""
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = api["components"]["schemas"][name] if name else schema
    return found


def event_fields(api: dict[str, Any], path: str) -> list[set[str]]:
    """Names of the fields of each kind of event of a stream."""
    content = api["paths"][path]["post"]["responses"]["200"]["content"]["text/event-stream"]
    kinds = content["schema"]["properties"]["data"]["contentSchema"]["anyOf"]
    return [set(resolve(api, kind)["properties"]) for kind in kinds]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/", "token"),
        ("/generate_stream", "token"),
        ("/invocations", "token"),
        ("/invocations", "choices"),
        ("/v1/completions", "choices"),
        ("/v1/chat/completions", "choices"),
        ("/v1/responses", "response"),
        ("/v1/responses", "delta"),
    ],
)
def test_events_have_fields(server: Server, path: str, field: str) -> None:
    """The document has the fields of a stream's events, and of the error that may end it."""
    kinds = event_fields(server.client.get("/openapi.json").json(), path)
    assert any(field in kind for kind in kinds)
    assert any("error" in kind for kind in kinds)


def test_models_have_fields(server: Server) -> None:
    """GET /v1/models describes the list and each model in it, as they are."""
    api = server.client.get("/openapi.json").json()
    content = api["paths"]["/v1/models"]["get"]["responses"]["200"]["content"]["application/json"]
    listed = resolve(api, content["schema"])
    (model,) = server.client.get("/v1/models").json()["data"]
    described = resolve(api, listed["properties"]["data"]["items"])["properties"]
    assert described.keys() == model.keys()


def test_every_reference_is_defined(server: Server) -> None:
    """No schema refers to one that the document lacks."""
    text = server.client.get("/openapi.json").text
    defined = json.loads(text)["components"]["schemas"]
    assert set(re.findall(r'"\$ref":"#/components/schemas/([^"]+)"', text)) <= defined.keys()
