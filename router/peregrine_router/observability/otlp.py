"""The SDK's export of spans: by gRPC or HTTP, on a thread of its own, bounded in memory and in time."""

import os
import threading
import uuid
from importlib.metadata import version

from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_EXPORT_BATCH_SIZE
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from peregrine_router.observability.tracing import HTTP, OtlpOptions

DEFAULT_SERVICE = "peregrine"
BATCH_SPANS = 64
"""Spans in an export unless OTEL_BSP_MAX_EXPORT_BATCH_SIZE says otherwise. Encoding holds the interpreter, and with it
the event loop: 0.1 ms a span."""
CLOSE_SECONDS = 1.0
"""Time for the last export: a collector that is gone does not delay the end of the server by more."""


class HashedResource(Resource):
    """A resource whose hash is computed once. The exporter asks for it for every span, a sixth of the encoding."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.attributes, resource.schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


def tracer_provider(options: OtlpOptions, service_name: str | None) -> TracerProvider:
    """The provider that exports to `options`. Sampler, limits and queue are the SDK's, by its OTEL_* variables."""
    provider = TracerProvider(resource=HashedResource(_resource(service_name)), shutdown_on_exit=False)
    size = None if os.environ.get(OTEL_BSP_MAX_EXPORT_BATCH_SIZE) else BATCH_SPANS
    provider.add_span_processor(BatchSpanProcessor(_exporter(options), max_export_batch_size=size))
    return provider


def close(provider: TracerProvider) -> None:
    """Exports the spans that are left, for CLOSE_SECONDS at most."""
    thread = threading.Thread(target=provider.shutdown, name="otlp-close", daemon=True)
    thread.start()
    thread.join(CLOSE_SECONDS)


def _exporter(options: OtlpOptions) -> SpanExporter:
    endpoint = options.endpoint
    if options.protocol == HTTP:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter(endpoint and f"{endpoint.rstrip('/')}/v1/traces")
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

    return GrpcExporter(endpoint)


def _resource(service_name: str | None) -> Resource:
    """The source of the spans. Its name is the option, else that of the OTEL_* variables, else DEFAULT_SERVICE."""
    attributes = {SERVICE_VERSION: version("peregrine"), SERVICE_INSTANCE_ID: str(uuid.uuid4())}
    resource = Resource(attributes).merge(Resource.create())
    if service_name is None and str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        service_name = DEFAULT_SERVICE
    return resource.merge(Resource({SERVICE_NAME: service_name})) if service_name else resource
