"""GET /metrics."""

import re
import time

from fakes import INFO, FakeEngine, Server, serve
from peregrine_router.engine.engine_stats import engine_stats
from peregrine_router.interfaces import EngineStats
from peregrine_router.observability.engine_metrics import DEPRECATED
from peregrine_router.observability.metrics import Metrics
from peregrine_router.request import Request, SamplingParams
from peregrine_router.scheduling.block_pool import BlockPool
from peregrine_router.scheduling.policy import FairPolicy
from peregrine_router.scheduling.scheduler import Scheduler
from peregrine_router.text.tokenizer import Tokenizer


def test_gauges_are_the_engines(server: Server) -> None:
    """Gauges show the engine at the moment of asking."""
    server.engine.stats = EngineStats(
        queue_size=3,
        batch_size=2,
        kv_blocks_used=5,
        kv_blocks_cached=6,
        kv_blocks_total=64,
        preemptions=1,
        cached_tokens=7,
        draft_tokens=12,
        accepted_tokens=8,
    )
    metrics = server.metrics()
    assert metrics["tgi_queue_size"] == 3
    assert metrics["tgi_batch_current_size"] == 2
    assert metrics["tgi_batch_max_total_tokens"] == 4096
    assert metrics["peregrine_kv_blocks_used"] == 5
    assert metrics["peregrine_kv_blocks_cached"] == 6
    assert metrics["peregrine_kv_blocks"] == 64
    assert metrics["peregrine_preemptions_total"] == 1
    assert metrics["peregrine_cached_tokens_total"] == 7
    assert metrics["peregrine_draft_tokens_total"] == 12
    assert metrics["peregrine_accepted_tokens_total"] == 8
    assert metrics["peregrine_healthy"] == 1


def test_renamed_series_keep_their_old_names_for_a_release(server: Server) -> None:
    """A dashboard that reads an old name shows the same value, and its help says what to read instead."""
    server.engine.stats = EngineStats(preemptions=1, cached_tokens=7, draft_tokens=12, accepted_tokens=8)
    metrics, text = server.metrics(), server.client.get("/metrics").text
    for old, new in DEPRECATED.items():
        assert metrics[old] == metrics[new] > 0
        assert f"# HELP {old} Deprecated, removed in the next release: {new} replaces it.\n" in text


def test_format(server: Server) -> None:
    """The text is Prometheus's, counters bear TGI's names and type, and nothing else is in it."""
    answer = server.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE tgi_request_count counter\ntgi_request_count 0.0\n" in answer.text
    assert "# TYPE peregrine_preemptions_total counter\nperegrine_preemptions_total 0.0\n" in answer.text
    assert not re.search(r"^tgi_\w+_total ", answer.text, re.MULTILINE)
    assert "_created" not in answer.text


def test_names_are_what_promtool_wants(server: Server) -> None:
    """`promtool check metrics` finds nothing but names of TGI: the rules of its linter that a name can break."""
    families = re.findall(r"^# TYPE (\w+) (\w+)$", server.client.get("/metrics").text, re.MULTILINE)
    ours = [(name, kind) for name, kind in families if not name.startswith("tgi_")]
    assert ours
    for name, kind in ours:
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search("[A-Z:]", name), name
        assert not re.search(r"_(count|sum|bucket)$", name), name
        assert not re.search(r"_(counter|gauge|histogram|summary|s|ms|us|ns|sec|min|b|kb|mb|gb)(_|$)", name), name
        assert kind != "histogram" or name.endswith("_seconds"), name


def test_what_only_grows_is_a_counter(server: Server) -> None:
    """Prometheus' `rate` and `increase` are for counters: no gauge shows what is counted since the start."""
    before, text = server.metrics(), server.client.get("/metrics").text
    server.engine.stats = EngineStats(preemptions=1, cached_tokens=7, draft_tokens=12, accepted_tokens=8)
    after = server.metrics()
    grown = {name for name in after if after[name] != before[name] and not name.startswith("process_")}
    grown -= DEPRECATED.keys()
    assert grown == set(DEPRECATED.values())
    assert all(f"# TYPE {name} counter\n" in text for name in grown)


def test_no_client_adds_a_series(server: Server) -> None:
    """Paths, ids, models, users and headers of any number leave the series as they were."""

    def ask(name: str) -> set[str]:
        server.generate(temperature=0)
        server.client.get(f"/{name}", headers={"x-request-id": name, "user-agent": name})
        server.client.post("/v1/completions", json={"model": name, "user": name, "prompt": "the", "stop": [name]})
        server.client.post("/v1/chat/completions", json={"model": name, "messages": [{"role": name, "content": name}]})
        return set(server.metrics())

    before = ask("first")
    assert all(ask(f"name-{number}") == before for number in range(3))


def test_apps_do_not_share_metrics(engine: FakeEngine) -> None:
    """Two apps in one process count apart."""
    with serve(engine) as first, serve(engine) as second:
        first.generate()
        assert second.metrics()["tgi_request_count"] == 0


def test_a_scrape_is_cheap(tokenizer: Tokenizer) -> None:
    """Beside 1,000 running requests and 1,000 that wait it takes less than 10 ms of CPU time."""
    scheduler = Scheduler(
        BlockPool(4096, 16),
        FairPolicy(1000, lead=0),
        max_batch_size=1000,
        max_step_tokens=8192,
        eos_token_ids=frozenset(),
    )
    for number in range(2000):
        request = Request(str(number), (number, 1), SamplingParams(), 20, tenant=str(number % 50))
        scheduler.submit_group([request])
    scheduler.schedule()
    assert len(scheduler.running) == scheduler.num_waiting == 1000
    metrics = Metrics(INFO)
    metrics.watch(BusyEngine(tokenizer, scheduler))
    assert min(scrape_seconds(metrics) for _ in range(10)) < 0.010


class BusyEngine(FakeEngine):
    """Shows the statistics of a scheduler."""

    def __init__(self, tokenizer: Tokenizer, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        super().__init__(tokenizer)

    @property
    def stats(self) -> EngineStats:
        return engine_stats(self._scheduler, 0.0)

    @stats.setter
    def stats(self, stats: EngineStats) -> None:
        """Ignores the dataclass's default."""


def scrape_seconds(metrics: Metrics) -> float:
    start = time.thread_time()
    metrics.render(is_openmetrics=True)
    return time.thread_time() - start


TGI_SERIES = {
    "counter": {
        "tgi_request_count",
        "tgi_request_success",
        "tgi_request_failure",
        "tgi_batch_inference_count",
        "tgi_batch_inference_success",
        "tgi_batch_inference_failure",
        "tgi_batch_concat",
    },
    "histogram": {
        "tgi_request_duration",
        "tgi_request_validation_duration",
        "tgi_request_queue_duration",
        "tgi_request_inference_duration",
        "tgi_request_mean_time_per_token_duration",
        "tgi_request_input_length",
        "tgi_request_generated_tokens",
        "tgi_request_max_new_tokens",
        "tgi_batch_inference_duration",
        "tgi_batch_forward_duration",
        "tgi_batch_decode_duration",
        "tgi_batch_filter_duration",
        "tgi_batch_concat_duration",
        "tgi_batch_next_size",
    },
    "summary": {"tgi_request_skipped_tokens"},
    "gauge": {
        "tgi_batch_current_size",
        "tgi_batch_current_max_tokens",
        "tgi_batch_max_total_tokens",
        "tgi_queue_size",
    },
}


def test_series_of_tgi(server: Server) -> None:
    """Every series of TGI's dashboards is there under its name and type, with its buckets."""
    text = server.client.get("/metrics").text
    for kind, names in TGI_SERIES.items():
        for name in names:
            assert f"# TYPE {name} {kind}\n" in text
    metrics = server.metrics()
    durations = [name for name in metrics if name.startswith("tgi_request_duration_bucket")]
    assert len(durations) == 36
    assert 'tgi_batch_forward_duration_bucket{le="0.00015000000000000001",method="decode"}' in metrics
    assert 'tgi_batch_next_size_bucket{le="1024.0"}' in metrics
