"""The GPU's part of docs/performance.md, from the data of `make bench-gpu`."""

import statistics
from typing import Any

from benchmarks.comparison import markdown_row, spread

INTRODUCTION = """## On a GPU

`make bench-gpu` on one {gpu} (torch {torch}, Triton {triton}), commit {commit}: random bfloat16 weights, steps as the
server starts them, medians of 20 runs. "Of the roof" is the time that bytes and operations take at the card's published
peaks, kernel by kernel, over the time taken. A decode step is one CUDA graph; a prompt is launched kernel by kernel.
"""
SERVED = """### What serving adds

`python -m benchmarks.gpu_serve` on one {device}, commit {commit}: simultaneous streams of {model}'s shape (random
weights, 512 tokens each) from `peregrine serve`, compared with the same decodes as bare CUDA graphs. "Busy" is CPU time
over wall time. {remark}
"""
SHOWN_CONTEXT = 2048
"""Shortest context, in tokens, that the attention table shows."""


def measured(data: dict[str, Any]) -> str:
    """The section on steps, attention, and where a step's time goes."""
    commit = data["commit"][:12]
    lines = [INTRODUCTION.format(**{**data, "gpu": data["gpu"].split(",")[0], "commit": commit})]
    lines += table("step", data["steps"])
    attention = [each for each in data["kernels"] if each["context"] >= SHOWN_CONTEXT]
    lines += ["Attention of one layer, cold L2; torch's own fused attention on contiguous K and V beside it.\n"]
    lines += table("kernel", attention)
    if linears := data.get("linears"):
        lines += ["Linears of one layer in bfloat16 and in packed weights, cold L2.\n", *table("linear", linears)]
    lines += [traced(model, trace) for model, trace in data["traces"].items()]
    return "\n".join(lines)


def table(what: str, figures: list[dict[str, Any]]) -> list[str]:
    """A table with a row for each figure."""
    rows = [
        [
            each["what"],
            each["model"],
            f"{each['rows']:,}",
            f"{each['context']:,}",
            f"{each['milliseconds']:.3f}",
            f"{each['fraction']:.0%}",
        ]
        for each in figures
    ]
    head = [f"| {what} | model | rows | context | ms | of the roof |", "|---|---|---|---|---|---|"]
    return [*head, *map(markdown_row, rows), ""]


def traced(model: str, trace: dict[str, Any]) -> str:
    """One captured step by kernel, for kernels of at least 1 % of it; branches overlap, so that sums exceed the
    step."""
    kernels = ", ".join(
        f"{name.split('(')[0].strip()} {each['runs']} x {each['microseconds'] / each['runs']:.1f} us"
        for name, each in trace["kernels"].items()
        if each["microseconds"] > 0.01 * trace["microseconds"]
    )
    return (
        f"A captured step of {model}, one row at 2,048 tokens: {trace['microseconds']:,.0f} us, of which no kernel "
        f"runs in {trace['all_gaps']:.0f}; the largest gap is {trace['largest_gap']:.1f} us. {kernels}.\n"
    )


def served(data: dict[str, Any]) -> str:
    """The section on `python -m benchmarks.gpu_serve`."""
    commit, remark = data["machine"]["commit"][:12], data.get("remark", "")
    loads: dict[tuple[bool, int], list[dict[str, Any]]] = {}
    for turn in data["turns"]:
        loads.setdefault((turn["overlaps"], turn["streams"]), []).append(turn)
    rows = []
    for (overlaps, streams), turns in sorted(loads.items(), key=lambda item: (not item[0][0], item[0][1])):
        ratios = [each["tokens_per_second"] / each["bare_tokens_per_second"] for each in turns]
        loop = "overlapped" if overlaps else "plain"
        rate, *busy = (median(turns, key) for key in ("tokens_per_second", "router_busy", "shard_busy"))
        rows.append([loop, str(streams), f"{rate:,.0f}", spread(ratios, 2), *(f"{each:.0%}" for each in busy)])
    head = [
        "| loop | streams | tokens/s | of the bare graph's | router busy | shard busy |",
        "|---|---|---|---|---|---|",
    ]
    introduction = SERVED.format(device=data["device"], commit=commit, model=data["model"], remark=remark)
    return "\n".join([introduction, *head, *map(markdown_row, rows), ""])


def median(turns: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(each[key] for each in turns))
