"""llama.cpp's llama-server, on a GGUF file of the same weights."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from benchmarks.peers.http import HttpPeer

SLOTS, SLOT_TOKENS = 32, 2048
"""A slot's context is the total divided by the slots."""


def llamacpp(folder: Path, model: Path, threads: int, kind: Literal["bf16", "q8_0", "q4_0"]) -> HttpPeer:
    """llama.cpp; the binary is LLAMA_SERVER, or else the one built by scripts/peers.sh."""
    server = os.environ.get("LLAMA_SERVER") or str(folder / "llama.cpp" / "bin" / "llama-server")
    python = folder / "llama.cpp" / "venv" / "bin" / "python"
    file = model / f"{kind}.gguf"

    def command(port: int) -> list[str]:
        sizes = ["-c", str(SLOTS * SLOT_TOKENS), "-np", str(SLOTS), "--threads", str(threads)]
        return [server, "-m", str(file), "--port", str(port), *sizes]

    def convert() -> None:
        if not file.exists():
            script = Path(__file__).parent / "drivers" / "write_gguf.py"
            interpreter = str(python) if python.exists() else sys.executable
            subprocess.run([interpreter, str(script), str(model), kind, str(file)], check=True)

    missing = None if shutil.which(server) else f"no {server}: run scripts/peers.sh llama.cpp, or set LLAMA_SERVER"
    return HttpPeer(f"llama.cpp {kind}", command, missing, prepare=convert)
