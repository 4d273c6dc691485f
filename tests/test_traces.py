"""Traces of a real server, at real collectors."""

import json
import re
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from collectors import OtelTap, Received, Rotel, otel_tap
from serving import ServerProcess, wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PROMPT = "The falcon waited on the wind above the valley, and when the grouse rose it folded its wings"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
pytestmark = pytest.mark.slow


@contextmanager
def collector(protocol: str, folder: Path) -> Iterator[Rotel | OtelTap]:
    """Rotel by gRPC, oteltap by HTTP."""
    if protocol == "grpc":
        with Rotel(folder) as rotel:
            yield rotel
    else:
        with otel_tap() as tap:
            yield tap


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_spans_of_a_stream_arrive(protocol: str, tmp_path: Path) -> None:
    """Parent, phases, a chunk's event each, a step's link, attributes, and no word of the prompt; a request whose
    parent is not sampled leaves nothing. The log line in JSON has the span's ids."""
    with collector(protocol, tmp_path) as receiver, (tmp_path / "log").open("w") as log:
        options = ("--otlp-endpoint", receiver.url, "--json-output", "--max-batch-prefill-tokens", "16")
        env = SOON | {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_SERVICE_NAME": "falcon"}
        with ServerProcess(*options, env=env, stderr=log) as server:
            for flag in ("00", "01"):
                server.client.headers["traceparent"] = f"00-{TRACE}-{PARENT}-{flag}"
                assert len(list(server.stream(PROMPT, max_new_tokens=3))) == 3
            assert wait_until(lambda: any(span.name.startswith("POST") for span in receiver.received()), 10)
        spans = {span.name: span for span in receiver.received()}
    check(spans, list(receiver.received()))
    (*_, done) = [
        line for line in map(json.loads, (tmp_path / "log").read_text().splitlines()) if line["message"] == "done"
    ]
    root = spans["POST /generate_stream"]
    assert (done["trace_id"], done["span_id"]) == (TRACE, root.span_id)
    assert done["id"] == root.attributes["gen_ai.request.id"]


def check(spans: dict[str, Received], all_spans: list[Received]) -> None:
    """The spans of one stream are whole."""
    root, step = spans["POST /generate_stream"], spans["step"]
    phases = [spans[name] for name in ("validation", "queue", "prefill", "decode")]
    assert len(all_spans) == 6
    assert (root.trace_id, root.parent_id, root.kind) == (TRACE, PARENT, "SPAN_KIND_SERVER")
    assert {(each.trace_id, each.parent_id) for each in phases} == {(TRACE, root.span_id)}
    num_tokens = int(root.attributes["gen_ai.usage.input_tokens"])
    assert spans["prefill"].events == ["peregrine.prefill_chunk"] * -(-num_tokens // 16)
    assert [link for each in phases for link in each.links] == [step.span_id]
    assert step.trace_id != TRACE
    expected = {
        "http.route": "/generate_stream",
        "http.response.status_code": "200",
        "gen_ai.operation.name": "text_completion",
        "gen_ai.request.max_tokens": "3",
        "gen_ai.usage.output_tokens": "3",
    }
    assert expected.items() <= root.attributes.items()
    assert "length" in root.attributes["gen_ai.response.finish_reasons"]
    assert all(float(root.attributes[f"gen_ai.latency.{name}"]) >= 0 for name in ("e2e", "time_to_first_token"))
    assert "falcon waited" not in str(all_spans)


@pytest.mark.alone
def test_a_collector_that_dies_slows_nothing(tmp_path: Path) -> None:
    """Requests take as long, memory stays flat once the queue is full, the log says it a few times, and SIGTERM ends
    the server in time."""
    with Rotel(tmp_path) as rotel, (tmp_path / "log").open("w") as log:
        env = SOON | {"OTEL_BSP_MAX_QUEUE_SIZE": "512"}
        with ServerProcess("--otlp-endpoint", rotel.url, "--log-level", "warning", env=env, stderr=log) as server:
            alive = [seconds(server) for _ in range(100)]
            assert wait_until(lambda: len(rotel.received()) > 100, 10)
            rotel.kill()
            dead = [seconds(server) for _ in range(150)]
            router = psutil.Process(server.process.pid)
            before = router.memory_info().rss
            dead += [seconds(server) for _ in range(150)]
            grown = router.memory_info().rss - before
            server.process.send_signal(signal.SIGTERM)
            stopping_at = time.monotonic()
            assert server.process.wait(20) == 0
            stop_seconds = time.monotonic() - stopping_at
    assert statistics.median(dead) < 2 * statistics.median(alive) + 0.005
    assert grown < 4 * 2**20
    assert stop_seconds < 5
    text = (tmp_path / "log").read_text()
    said = re.findall(r"^\S+ (?:WARNING|ERROR) opentelemetry\..*$", text, re.MULTILINE)
    assert 1 <= len(said) <= 5, text


def seconds(server: ServerProcess) -> float:
    """Time of a request for one token."""
    start = time.monotonic()
    server.generate("the", max_new_tokens=1).raise_for_status()
    return time.monotonic() - start
