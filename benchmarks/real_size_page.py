"""The section of docs/performance.md on `make bench-7b`."""

from collections.abc import Callable
from typing import Any

from benchmarks.comparison import markdown_row, spread

SECTION = """## A real size: Falcon-7B's shape

`make bench-7b` serves Falcon-7B's shape with random weights (13.8 GB of bfloat16 in nine files) with whole servers, the
formats taking turns. "Cold": with none of the files' pages in memory. "Load" is what the start-up line says; it is
compared with the longer of reading the files, by as many threads, and packing the weights, each alone. "Peak" is the
most memory that the shard's process had held when it was ready, torch and all. "Of the roof" is the rate at which the
steps read weights over the memory bandwidth, measured before and after the streams.
"""


def served(data: dict[str, Any]) -> str:
    """The section of one machine."""
    samples: dict[str, list[dict[str, Any]]] = {}
    for sample in data["samples"]:
        samples.setdefault(sample["format"], []).append(sample)
    loads = [load_row(name, pages, each) for name, each in samples.items() for pages in ("cold", "warm")]
    rates = [rate_row(name, index, each) for name, each in samples.items() for index in range(len(each[0]["tokens"]))]
    return "\n".join(
        [
            markdown_row(["weights", "pages", "load, s", "GB/s", "load / longer", *ALONE, "weights, GB", "peak, GB"]),
            "|---" * 9 + "|",
            *loads,
            "",
            "| weights | streams | tokens/s | GB/s of memory | of the roof |",
            "|---|---|---|---|---|",
            *rates,
            "",
        ]
    )


def load_row(name: str, pages: str, samples: list[dict[str, Any]]) -> str:
    """Loads of a format from the disk or from memory."""

    def each(value: Callable[[dict[str, Any]], float], digits: int) -> str:
        return spread([value(sample) for sample in samples], digits)

    def longer(sample: dict[str, Any]) -> float:
        alone: list[float] = [sample["read_seconds"][pages], sample["pack_seconds"]]
        return max(alone)

    cells = [
        each(lambda sample: sample[pages]["seconds"], 1),
        each(lambda sample: sample[pages]["gigabytes"] / sample[pages]["seconds"], 2),
        each(lambda sample: sample[pages]["seconds"] / longer(sample), 2),
        each(lambda sample: sample["read_seconds"][pages], 1),
        each(lambda sample: sample["pack_seconds"], 1),
        each(lambda sample: sample["weight_bytes"] / 1e9, 2),
        each(lambda sample: sample[pages]["peak_bytes"] / 1e9, 2),
    ]
    return markdown_row([name, pages, *cells])


def rate_row(name: str, index: int, samples: list[dict[str, Any]]) -> str:
    """Tokens of a number of streams."""
    rates = [sample["tokens"][index] for sample in samples]
    cells = [spread([rate[kind] * scale for rate in rates], digits) for kind, scale, digits in COLUMNS]
    return markdown_row([name, str(rates[0]["streams"]), *cells])


ALONE = ("reading, s", "packing, s")
COLUMNS = (("tokens_per_second", 1.0, 2), ("bandwidth", 1e-9, 1), ("share", 1.0, 2))
"""Key, factor and digits of a rate's columns."""
