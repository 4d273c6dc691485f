"""vLLM's CPU build."""

from pathlib import Path

from benchmarks.peers.http import HttpPeer


def vllm(folder: Path, model: Path, dtype: str, threads: int) -> HttpPeer:
    """vLLM with bound cores and a KV cache size: by default it computes on one core and takes nine tenths of the
    memory."""
    script = folder / "vllm" / "bin" / "vllm"

    def command(port: int) -> list[str]:
        options = ["--dtype", dtype, "--max-model-len", "2048", "--served-model-name", "falcon"]
        return [str(script), "serve", str(model), "--port", str(port), *options]

    environment = {"VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}", "VLLM_CPU_KVCACHE_SPACE": "2"}
    missing = None if script.exists() else f"no {script}: run scripts/peers.sh vllm"
    return HttpPeer("vLLM bf16", command, missing, environment=environment)
