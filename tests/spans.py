"""Spans kept in memory instead of exported, for tests."""

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from peregrine_router.observability.request_spans import RequestSpans


class Spans:
    """A provider and what it was given."""

    def __init__(self, sampler: Sampler | None = None, *, has_content: bool = False) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = RequestSpans(self.provider, "peregrine/test", has_content=has_content)

    @property
    def names(self) -> list[str]:
        """In order of their ends."""
        return [span.name for span in self.all]

    @property
    def all(self) -> Sequence[ReadableSpan]:
        """All that have ended."""
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        """The only span with that name."""
        (span,) = [span for span in self.all if span.name == name]
        return span


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """The attributes of a span."""
    return dict(span.attributes or {})
