"""The engine's statistics as series."""

import pytest

from fakes import Server
from peregrine_router.interfaces import EngineStats
from peregrine_router.observability.engine_metrics import COUNTERS, MAX_TENANTS


def test_tenants_are_counted_by_state(server: Server) -> None:
    """By the first digits of their names, waiting and running."""
    server.engine.stats = EngineStats(waiting_by_tenant={"0123456789abcdef": 3}, running_by_tenant={"": 1})
    metrics = server.metrics()
    assert metrics['peregrine_tenant_requests{state="waiting",tenant="01234567"}'] == 3
    assert metrics['peregrine_tenant_requests{state="running",tenant="01234567"}'] == 0
    assert metrics['peregrine_tenant_requests{state="running",tenant=""}'] == 1


def test_tenants_are_bounded(server: Server) -> None:
    """The ten with the most requests have series; a thousand others are one."""
    counts = {f"{number:016x}": number for number in range(1, 1001)}
    server.engine.stats = EngineStats(waiting_by_tenant={name[::-1]: count for name, count in counts.items()})
    metrics = {name: value for name, value in server.metrics().items() if "peregrine_tenant_requests" in name}
    assert len(metrics) == 2 * (MAX_TENANTS + 1)
    assert metrics['peregrine_tenant_requests{state="waiting",tenant="other"}'] == sum(range(1, 991))
    assert sum(metrics.values()) == sum(range(1, 1001))


def test_the_cache_use_is_one_gauge(server: Server) -> None:
    """From 0 to 1, for endpoint pickers, which read a single series."""
    server.engine.stats = EngineStats(kv_blocks_used=16, kv_blocks_total=64)
    assert server.metrics()["peregrine_kv_cache_usage_ratio"] == 0.25


def test_build_and_model_are_labels(server: Server) -> None:
    """Version, model and size of the cache."""
    named = {name.partition("{")[0]: name for name in server.metrics() if "_info{" in name}
    assert 'version="' in named["peregrine_build_info"]
    assert 'model="peregrine/test"' in named["peregrine_model_info"]
    assert "num_gpu_blocks=" in named["peregrine_cache_config_info"]


@pytest.mark.parametrize("name", [name for name, _, _ in COUNTERS])
def test_every_counter_reads_its_own_field(server: Server, name: str) -> None:
    """No two counters show one number."""
    field = {
        "peregrine_prefix_cache_evictions_total": "evictions",
        "peregrine_step_budget_tokens_total": "budget_tokens",
    }.get(name, name.removeprefix("peregrine_").removesuffix("_total"))
    server.engine.stats = EngineStats(**{field: 7})  # type: ignore[arg-type]
    metrics = server.metrics()
    assert [each for each, _, _ in COUNTERS if metrics[each] == 7] == [name]


def test_the_process_is_measured(server: Server) -> None:
    """Memory, CPU time, files and start of the router."""
    metrics = server.metrics()
    assert metrics["process_resident_memory_bytes"] > 2**20
    assert metrics["process_open_fds"] > 3
    assert metrics["process_cpu_seconds_total"] > 0
