"""Whether traces are exported, and what a server without them does not load."""

import subprocess
import sys
from typing import Any

import pytest

from peregrine_router.observability.tracing import GRPC, HTTP, OtlpOptions, open_tracing, otlp_options
from peregrine_router.settings import Settings

BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("settings", "environ", "expected"),
    [
        ({}, {}, None),
        ({"otlp_endpoint": "http://a:4317"}, {}, OtlpOptions(GRPC, "http://a:4317")),
        ({"otlp_endpoint": "http://a:4318"}, {}, OtlpOptions(HTTP, "http://a:4318")),
        ({"otlp_endpoint": "http://a:9"}, {"OTEL_EXPORTER_OTLP_PROTOCOL": HTTP}, OtlpOptions(HTTP, "http://a:9")),
        ({}, {BASE: "http://a:4318"}, OtlpOptions(HTTP, None)),
        ({}, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:1"}, OtlpOptions(GRPC, None)),
        ({"otlp_endpoint": "http://a:1"}, {"OTEL_SDK_DISABLED": "TRUE"}, None),
        ({"otlp_endpoint": "http://a:1"}, {"OTEL_TRACES_EXPORTER": "none"}, None),
        ({}, {BASE: ""}, None),
    ],
)
def test_an_endpoint_turns_traces_on(
    settings: dict[str, Any], environ: dict[str, str], expected: OtlpOptions | None
) -> None:
    """The option or the SDK's variables name it; the port, or a variable, says which protocol; two forbid all."""
    assert otlp_options(Settings(**settings), environ) == expected


def test_an_unknown_protocol_is_told() -> None:
    """One line that names the variable and the choices, before the model is loaded."""
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_PROTOCOL: http/json is not known, choose grpc or http"):
        otlp_options(Settings(otlp_endpoint="http://a:1"), {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})


def test_no_endpoint_no_tracing() -> None:
    """The server has nothing to call, so that a request costs what it did without traces."""
    assert open_tracing(Settings(), {}, "m") is None


@pytest.mark.slow
def test_a_server_without_traces_loads_no_sdk() -> None:
    """Neither the SDK nor its exporters, with all that the command imports."""
    code = (
        "import os, sys, peregrine_router.launch.serve as serve;"
        "from peregrine_router.settings import Settings;"
        "assert serve.open_tracing(Settings(), {}, 'm') is None;"
        "names = ('opentelemetry.sdk', 'opentelemetry.exporter', 'grpc', 'google.protobuf', 'requests');"
        "assert not [name for name in sys.modules if name.startswith(names)]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
