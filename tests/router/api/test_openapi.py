"""The OpenAPI document and GET /docs."""

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
        "post": "/ /generate /generate_stream /invocations /vertex /tokenize /chat_tokenize /v1/completions "
        "/v1/chat/completions /cancel/{id}",
        "get": "/ /info /health /ping /metrics /v1/models",
    }
    for method, paths in routes.items():
        for path in paths.split():
            operation = api["paths"][path][method]
            assert operation["description"]
            assert operation["responses"]["200"]["description"]
    for name in ("GenerateParameters", "CompletionRequest", "ChatRequest", "Message", "Function"):
        for field, described in api["components"]["schemas"][name]["properties"].items():
            assert {"description", "examples", "$ref", "const", "anyOf"} & set(described), (name, field)
    assert {"401", "413", "415", "422", "429", "500"} <= set(api["paths"]["/generate"]["post"]["responses"])


def test_errors_have_the_shape_of_their_route(server: Server) -> None:
    """Errors under /v1 are documented in OpenAI's shape, all others in TGI's."""
    for path, operations in server.client.get("/openapi.json").json()["paths"].items():
        for operation in operations.values():
            if "401" in operation["responses"]:
                (content,) = operation["responses"]["401"]["content"].values()
                expected = "OpenAiErrorResponse" if path.startswith("/v1/") else "ErrorResponse"
                assert content["schema"]["$ref"].endswith(f"/{expected}"), path
