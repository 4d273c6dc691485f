"""Writes the table of docs/operations/metrics.md from the series that a server exposes: python -m scripts.series."""

import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from peregrine_router.hardware import ROOFS
from peregrine_router.interfaces import EngineStats, ModelInfo
from peregrine_router.observability.metrics import Metrics
from peregrine_router.observability.model_cost import ModelCost

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operations" / "metrics.md"
HEAD = "| series | type | labels | meaning |\n|---|---|---|---|\n"
_TABLE = re.compile(re.escape(HEAD) + r"(\|.*\n)*")
_FACTS = ModelInfo("model", None, "bfloat16", "cuda", 1, 4096, 256, 1024, 2048)


class IdleEngine:
    """The engine of a server without requests."""

    is_healthy = True
    stats = EngineStats(kv_blocks_total=64)


def families() -> list[Metric]:
    """Every family that GET /metrics has, on a device whose peaks are known, after a request that failed."""
    metrics = Metrics(_FACTS, ModelCost(1, 1, 1, 1, ROOFS["H200"]))
    metrics.watch(IdleEngine())  # type: ignore[arg-type]
    metrics.watch_log(lambda: 0)
    return list(text_string_to_metric_families(metrics.render().decode()))


def with_table(page: str) -> str:
    """The page with its table made anew; ValueError if it has none."""
    if not _TABLE.search(page):
        raise ValueError(f"{PAGE.name} has no table that begins with {HEAD}")
    return _TABLE.sub(lambda _: HEAD + "".join(_rows()), page)


def _rows() -> Iterator[str]:
    for family in sorted(families(), key=_order):
        name = family.name if family.name.startswith("tgi_") or family.type != "counter" else f"{family.name}_total"
        labels = {label for sample in family.samples for label in sample.labels if label not in ("le", "quantile")}
        names = ", ".join(f"`{label}`" for label in sorted(labels))
        yield f"| `{name}` | {family.type} | {names} | {family.documentation} |\n"


def _order(family: Metric) -> tuple[int, str]:
    """Peregrine's own, the conventions', TGI's, the process's."""
    prefixes = ("peregrine_", "gen_ai_", "tgi_", "process_")
    return next(at for at, prefix in enumerate(prefixes) if family.name.startswith(prefix)), family.name


def main() -> None:
    """Writes the page."""
    PAGE.write_text(with_table(PAGE.read_text()))


if __name__ == "__main__":
    main()
