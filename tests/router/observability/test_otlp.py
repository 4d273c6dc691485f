"""The SDK as it is set up: the server's name, and an end in time whatever the collector does."""

import socket
import subprocess
import sys

import pytest

from peregrine_router.observability.otlp import BATCH_SPANS, CLOSE_SECONDS, close, tracer_provider
from peregrine_router.observability.tracing import GRPC, HTTP, OtlpOptions
from serving import free_port


@pytest.mark.parametrize(
    ("option", "environ", "expected"),
    [
        (None, {}, "peregrine"),
        (None, {"OTEL_SERVICE_NAME": "a"}, "a"),
        (None, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,zone=b"}, "a"),
        ("c", {"OTEL_SERVICE_NAME": "a"}, "c"),
    ],
)
def test_the_servers_name(
    option: str | None, environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option's, else the SDK's, else ours; the other attributes of the variable stay."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    provider = tracer_provider(OtlpOptions(HTTP, "http://127.0.0.1:1"), option)
    assert provider.resource.attributes["service.name"] == expected
    assert provider.resource.attributes.get("zone") == ("b" if "zone" in str(environ) else None)
    assert provider.resource.attributes["service.version"]
    close(provider)


LOST = """
import sys, time
from peregrine_router.observability.otlp import close, tracer_provider
from peregrine_router.observability.tracing import OtlpOptions

provider = tracer_provider(OtlpOptions(sys.argv[1], sys.argv[2]), None)
for _ in range(3000):
    provider.get_tracer("test").start_span("a").end()
start = time.monotonic()
close(provider)
print(time.monotonic() - start)
"""
"""A process of its own: the SDK's threads go on trying, and draw from `random`, for which Hypothesis blames others."""


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [GRPC, HTTP])
@pytest.mark.parametrize("is_hanging", [False, True])
def test_a_lost_collector_does_not_delay_the_end(protocol: str, is_hanging: bool) -> None:
    """Whether nobody listens, or somebody who never answers, with a queue that is full."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1] if is_hanging else free_port()
        command = [sys.executable, "-c", LOST, protocol, f"http://127.0.0.1:{port}"]
        ended = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True)
        assert float(ended.stdout) < CLOSE_SECONDS + 0.5


def test_an_export_is_small_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop waits while one is encoded."""
    for given, expected in (("", BATCH_SPANS), ("200", 200)):
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", given)
        provider = tracer_provider(OtlpOptions(HTTP, "http://127.0.0.1:1"), None)
        (processor,) = provider._active_span_processor._span_processors
        assert processor._batch_processor._max_export_batch_size == expected  # type: ignore[attr-defined]
        close(provider)
