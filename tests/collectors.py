"""Real receivers of OTLP, and the spans that they were sent in one form: rotel by gRPC, oteltap by HTTP."""

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rotel
from opentelemetry.proto.trace.v1 import trace_pb2
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

from serving import free_port, wait_until

AGENT = Path(rotel.__file__).with_name("rotel-agent")


@dataclass
class Received:
    """A span as its receiver tells of it."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    attributes: dict[str, str] = field(default_factory=dict)
    """Values as text."""
    events: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    """Ids of the spans linked to."""


class Rotel:
    """A collector process that prints what it receives."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._output = folder / "rotel.txt"
        endpoints = [
            "--otlp-grpc-endpoint",
            f"127.0.0.1:{self.port}",
            "--otlp-http-endpoint",
            f"127.0.0.1:{free_port()}",
        ]
        files = ["--pid-file", str(folder / "rotel.pid"), "--log-file", str(folder / "rotel.log")]
        shown = ["--exporter", "blackhole", "--debug-log", "traces", "--debug-log-verbosity", "detailed"]
        with self._output.open("w") as output:
            self.process = subprocess.Popen([AGENT, "start", *endpoints, *files, *shown], stdout=output, stderr=output)

    def received(self) -> list[Received]:
        """All spans so far."""
        return [_parse(text) for text in re.split(r"^Span #\d+\n", self._output.read_text(), flags=re.MULTILINE)[1:]]

    def kill(self) -> None:
        """Ends it without a goodbye."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()


class OtelTap:
    """A receiver in a thread of this process."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self._spans: list[Received] = []

    def received(self) -> list[Received]:
        """All spans so far."""
        return list(self._spans)

    async def receive(self) -> None:
        """Receives until it is cancelled."""
        async with OtelTapHttpProtobufReceiver(OtelTapHttpProtobufReceiverSettings(http_port=self.port)) as receiver:
            async for span in receiver.stream_traces():
                self._spans.append(_read(span))


@contextlib.contextmanager
def otel_tap() -> Iterator[OtelTap]:
    """Runs one until the block ends."""
    tap, loop = OtelTap(free_port()), asyncio.new_event_loop()
    task = loop.create_task(tap.receive())

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert wait_until(lambda: _listens(tap.port), 10)
        yield tap
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _parse(text: str) -> Received:
    """One span of rotel's output."""

    def head(name: str) -> str:
        found = re.search(rf"^    {name} *: (\S.*)?$", text, re.MULTILINE)
        return (found.group(1) or "") if found else ""

    attributes = re.findall(r"^     -> (\S+): \w+\((.*)\)$", text.partition("Attributes:\n")[2], re.MULTILINE)
    return Received(
        head("Name"),
        head("Trace ID"),
        head("ID"),
        head("Parent ID"),
        head("Kind"),
        dict(attributes),
        re.findall(r"^     -> Name: (\S+)$", text, re.MULTILINE),
        re.findall(r"^     -> ID: (\S+)$", text, re.MULTILINE),
    )


def _read(span: trace_pb2.Span) -> Received:
    """One span of oteltap's."""
    return Received(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        trace_pb2.Span.SpanKind.Name(span.kind),
        {each.key: _value(each.value) for each in span.attributes},
        [event.name for event in span.events],
        [link.span_id.hex() for link in span.links],
    )


def _value(value: Any) -> str:
    return str(getattr(value, value.WhichOneof("value")))
