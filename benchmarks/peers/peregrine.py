"""Our own server, as a user starts it."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from benchmarks.peers.http import HttpPeer
from peregrine_router.settings import Settings

MAX_TOTAL_TOKENS = 2048
KV_TOKENS = 64 * 1024
"""Tokens of KV cache: 32 slots of 2,048 tokens, as llama.cpp has."""
Weights = Literal["bf16", "int8", "int4"]


def peregrine(
    model: Path, weights: Weights, environment: Mapping[str, str] = {}, kv_tokens: int = KV_TOKENS
) -> HttpPeer:
    """Our server; others than bf16 only where this version has them. `environment`: further settings."""
    options = [] if weights == "bf16" else ["--quantize", weights]
    lacks = weights != "bf16" and "quantize" not in Settings.model_fields

    def command(port: int) -> list[str]:
        script = Path(sys.executable).with_name("peregrine")
        limits = ["--max-batch-total-tokens", str(kv_tokens), "--max-total-tokens", str(MAX_TOTAL_TOKENS)]
        return [str(script), "serve", "--model-id", str(model), "--port", str(port), *limits, *options]

    missing = f"this version has no --quantize {weights}" if lacks else None
    return HttpPeer(f"Peregrine {weights}", command, missing, environment=environment)
