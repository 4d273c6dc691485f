"""schemathesis on the app's own OpenAPI document, against the real server: well-formed requests and malformed ones."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import APIOperation, Case, CheckContext, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from fakes import INFO, FakeEngine, make_tokenizer
from peregrine_router.app import build_app
from peregrine_router.settings import Settings
from serving import ServerProcess, wait_until

pytestmark = pytest.mark.slow

Operation = APIOperation[Any, Any, Any, Any]


def not_a_fault(ctx: CheckContext, response: Response, case: Case[Any]) -> bool | None:
    """No 5xx, but what a request gets that asks for less time than it takes."""
    if response.status_code == 504:
        return None
    return not_a_server_error(ctx, response, case)


CHECKS = [
    not_a_fault,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
MAX_EXAMPLES = 10
TIMEOUT_SECONDS = 60
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
    with ServerProcess("--dtype", "float32", "--max-total-tokens", "32", "--max-input-tokens", "24") as server:
        yield Target(server)


def operations() -> list[Operation]:
    """Every route of the app's document."""
    tokenizer = make_tokenizer()
    app = build_app(FakeEngine(tokenizer), tokenizer, Settings(), INFO)
    results = schemathesis.openapi.from_dict(app.openapi()).get_all_operations()
    return [result.ok() for result in results if isinstance(result, Ok)]


def cases() -> Iterator[Any]:
    """Each operation with well-formed input, and with malformed input if it takes any."""
    for operation in operations():
        yield pytest.param(operation, GenerationMode.POSITIVE, id=f"{operation.label}-positive")
        if operation.body:
            yield pytest.param(operation, GenerationMode.NEGATIVE, id=f"{operation.label}-negative")


@pytest.mark.parametrize(("operation", "mode"), list(cases()))
def test_no_request_is_too_much(target: Target, operation: Operation, mode: GenerationMode) -> None:
    """No 5xx, no status, type or shape that the document does not know, and nothing malformed is accepted."""

    @settings(
        max_examples=MAX_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Case[Any]) -> None:
        case.call_and_validate(base_url=str(target.server.client.base_url), checks=CHECKS, timeout=TIMEOUT_SECONDS)

    run()


def test_afterwards_all_is_as_before(target: Target) -> None:
    """A golden request gets the tokens that it got before, and every KV block is free."""
    assert target.golden() == target.before
    assert wait_until(lambda: target.server.metric("peregrine_kv_blocks_used") == 0, 5)
    assert target.server.metric("tgi_batch_current_size") == 0
