"""schemathesis on the app's own OpenAPI document, against the real server: well-formed requests and malformed ones."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from serving import ServerProcess, wait_until

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
GOLDEN = {"inputs": "It was a fine morning, and", "parameters": {"max_new_tokens": 24, "details": True}}


class Target:
    """A server that answers soon, and what it said before."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.before = self.golden()

    def golden(self) -> list[int]:
        """The tokens of a greedy request."""
        details = self.server.client.post("/generate", json=GOLDEN).json()["details"]
        return [token["id"] for token in details["tokens"]]


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    # Short answers: a request that names no length gets all the room there is.
    with ServerProcess("--dtype", "float32", "--max-total-tokens", "48", "--max-input-tokens", "40") as server:
        yield Target(server)


@pytest.fixture(scope="module")
def api(target: Target) -> BaseSchema:
    schema = schemathesis.openapi.from_url(f"{target.server.client.base_url}/openapi.json")
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    schema.config.generation.update(modes=modes, allow_x00=True, deterministic=True)
    schema.config.phases.coverage.enabled = False
    return schema


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_is_too_much(case: Case) -> None:
    """No 5xx, no status, type or shape that the document does not know, and nothing malformed is accepted."""
    case.call_and_validate(checks=CHECKS)


def test_afterwards_all_is_as_before(target: Target) -> None:
    """A golden request gets the tokens that it got before, and every KV block is free."""
    assert target.golden() == target.before
    assert wait_until(lambda: target.server.metric("peregrine_kv_blocks_used") == 0, 5)
    assert target.server.metric("tgi_batch_current_size") == 0
