"""The servers to compare with: how each is found, started on the benchmark's model, loaded and stopped.

Servers that are not installed are skipped and named. scripts/peers.sh installs them.
"""

import os
from pathlib import Path

from benchmarks.peak import peer_dtype
from benchmarks.peers.http import HttpPeer
from benchmarks.peers.llamacpp import llamacpp
from benchmarks.peers.peregrine import peregrine
from benchmarks.peers.process import InProcessPeer
from benchmarks.peers.vllm import vllm

Peer = HttpPeer | InProcessPeer
GROUPS = {
    "bf16": ("Peregrine bf16", "llama.cpp bf16", "vLLM bf16", "OpenVINO bf16"),
    "int8": ("Peregrine bf16", "transformers bf16", "Peregrine int8", "llama.cpp q8_0", "OpenVINO int8"),
    "int4": ("Peregrine bf16", "Peregrine int8", "Peregrine int4", "llama.cpp q4_0"),
}
"""Group name -> servers that run at once, as many as 24 GiB hold."""
PEERS_FOLDER = Path(os.environ.get("PEERS", "/tmp/peers"))
"""Folder in which scripts/peers.sh installs them."""


def all_peers(model: Path, threads: int) -> list[Peer]:
    """All servers in the order of the table, ours first, whether installed or not."""
    drivers = Path(__file__).parent / "drivers"
    dtype = str(peer_dtype()).removeprefix("torch.")
    openvino = PEERS_FOLDER / "openvino" / "bin" / "python"
    return [
        peregrine(model, "bf16"),
        llamacpp(PEERS_FOLDER, model, threads, "bf16"),
        vllm(PEERS_FOLDER, model, dtype, threads),
        InProcessPeer("OpenVINO bf16", openvino, drivers / "run_openvino.py", (str(model), "fp16", str(threads))),
        InProcessPeer("transformers bf16", None, drivers / "run_transformers.py", (str(model), dtype, str(threads))),
        peregrine(model, "int8"),
        llamacpp(PEERS_FOLDER, model, threads, "q8_0"),
        peregrine(model, "int4"),
        llamacpp(PEERS_FOLDER, model, threads, "q4_0"),
        InProcessPeer("OpenVINO int8", openvino, drivers / "run_openvino.py", (str(model), "int8", str(threads))),
    ]
