"""vLLM's CPU build."""

from pathlib import Path

from benchmarks.peers.http import HttpPeer


def vllm(folder: Path, model: Path, dtype: str, threads: int) -> HttpPeer:
    """Without the binding it computes on one core; without a size it takes nine tenths of the memory."""
    script = folder / "vllm" / "bin" / "vllm"

    def command(port: int) -> list[str]:
        options = ["--dtype", dtype, "--max-model-len", "2048", "--served-model-name", "falcon"]
        return [str(script), "serve", str(model), "--port", str(port), *options]

    environment = {"VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}", "VLLM_CPU_KVCACHE_SPACE": "2"}
    missing = None if script.exists() else f"no {script}: run scripts/peers.sh vllm"
    return HttpPeer("vLLM bf16", command, missing, environment=environment)
