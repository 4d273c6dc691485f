"""The bars of a comparison beside the measurements: ours against the best peer in each scenario."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.comparison import OURS, grouped, markdown_row, ratios, spread

Sample = dict[str, Any]
BF16, INT8, INT4 = f"{OURS} bf16", f"{OURS} int8", f"{OURS} int4"
TIMES_BEST_PEER = {"one stream": 1.0, "8 streams": 1.2, "prefill 1024": 1.0, "32 mixed": 1.0, "shared prefix": 1.3}
OF_HARDWARE = 0.85
TIMES_BF16 = 1.75
INT8_SCENARIOS = ("one stream", "8 streams", "prefill 1024")


def verdicts(groups: dict[str, dict[str, Any]]) -> str:
    """The promises for which there is data, as a Markdown table; `groups` as `make compare` keeps them."""
    rows = []
    if "bf16" in groups:
        rows += bf16_rows(grouped(groups["bf16"]["samples"]))
    if "int8" in groups:
        rows += int8_rows(grouped(groups["int8"]["samples"]))
    if "int4" in groups:
        rows += int4_rows(grouped(groups["int4"]["samples"]))
    return "\n".join(["| promise | measured | bar |", "|---|---|---|", *rows]) + "\n"


def bf16_rows(scenarios: dict[str, dict[str, list[Sample]]]) -> list[str]:
    rows = []
    for name, by_peer in scenarios.items():
        peers = {peer: samples for peer, samples in by_peer.items() if peer != BF16}
        if peers and BF16 in by_peer:
            rows.append(against_best(f"{name}: tokens/s", by_peer[BF16], peers, f">= {TIMES_BEST_PEER[name]}"))
    for name, by_peer in scenarios.items():
        shares = [sample["of_hardware"] for sample in by_peer.get(BF16, []) if sample["of_hardware"]]
        if shares:
            rows.append(markdown_row((f"{name}: of the hardware's speed", spread(shares, 2), f">= {OF_HARDWARE}")))
    mixed = scenarios.get("32 mixed", {})
    if BF16 in mixed and len(mixed) > 1:
        rows.append(least(mixed, "32 mixed: p99 between tokens", lambda s: s["inter_token"]["p99"], "<= 0.25"))
        rows.append(least(mixed, "32 mixed: median first token", lambda s: s["first_token"]["p50"], "< 1"))
    return rows


def int8_rows(scenarios: dict[str, dict[str, list[Sample]]]) -> list[str]:
    rows = []
    for name in INT8_SCENARIOS:
        by_peer = scenarios.get(name, {})
        if BF16 in by_peer and INT8 in by_peer:
            measured = spread(ratios(by_peer[INT8], by_peer[BF16]), 2)
            rows.append(markdown_row((f"int8, {name}: tokens/s over our bf16", measured, f">= {TIMES_BF16}")))
    for name, by_peer in scenarios.items():
        peers = {peer: samples for peer, samples in by_peer.items() if "bf16" not in peer and peer != INT8}
        if peers and INT8 in by_peer:
            bar = 1.5 if name == "prefill 1024" else 1.0
            rows.append(against_best(f"int8, {name}: tokens/s", by_peer[INT8], peers, f">= {bar}"))
    return rows


def int4_rows(scenarios: dict[str, dict[str, list[Sample]]]) -> list[str]:
    rows = []
    for name, by_peer in scenarios.items():
        peers = {peer: samples for peer, samples in by_peer.items() if peer not in (BF16, INT8, INT4)}
        if peers and INT4 in by_peer:
            rows.append(against_best(f"int4, {name}: tokens/s", by_peer[INT4], peers, ">= 1.0"))
    return rows


def against_best(claim: str, ours: Sequence[Sample], peers: dict[str, list[Sample]], bar: str) -> str:
    """Our ratios over the peer against which our median is lowest."""
    over = {peer: ratios(ours, samples) for peer, samples in peers.items()}
    best = min((peer for peer in over if over[peer]), key=lambda peer: statistics.median(over[peer]))
    return markdown_row((f"{claim} over {best}", spread(over[best], 2), bar))


def least(by_peer: dict[str, list[Sample]], claim: str, value: Callable[[Sample], float], bar: str) -> str:
    """Our median over the lowest of the peers' medians."""
    medians = {peer: statistics.median(map(value, samples)) for peer, samples in by_peer.items()}
    ours = medians.pop(BF16)
    best = min(medians, key=medians.__getitem__)
    return markdown_row((f"{claim} over {best}", f"{ours / medians[best]:.2f}", bar))
