"""OpenVINO GenAI's continuous batching, driven step by step. Runs in its own environment, without our packages."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino_genai import ContinuousBatchingPipeline, GenerationConfig, SchedulerConfig

STEP_TOKENS = 256
"""Token budget of a step, which decides the tail latency."""
CACHE_GB = 1


def main() -> None:
    """Arguments: model folder, weight format, threads."""
    model, weights, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    scheduler = SchedulerConfig()
    scheduler.cache_size = CACHE_GB
    scheduler.max_num_batched_tokens = STEP_TOKENS
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = True  # off by default; every server here has its own on
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    pipeline = ContinuousBatchingPipeline(str(exported(model, weights)), scheduler, "CPU", options)
    print("> ready", flush=True)
    first_id = 0
    for line in sys.stdin:
        requests = json.loads(line)
        print("> " + json.dumps(run(pipeline, requests, first_id)), flush=True)
        first_id += len(requests)


def exported(model: Path, weights: str) -> Path:
    """The model in OpenVINO's format, made once (80 to 100 s)."""
    folder = model.parent / f"{model.name}-openvino-{weights}"
    if not (folder / "openvino_model.xml").exists():
        command = [str(Path(sys.executable).with_name("optimum-cli")), "export", "openvino", "-m", str(model)]
        task = ["--task", "text-generation-with-past", "--weight-format", weights, str(folder)]
        subprocess.run([*command, *task], check=True, stdout=sys.stderr)
    return folder


def run(pipeline: ContinuousBatchingPipeline, requests: list[dict[str, Any]], first_id: int) -> list[list[float]]:
    """Seconds of each request's tokens."""
    start = time.perf_counter()
    handles = [
        pipeline.add_request(first_id + i, ov.Tensor(np.array([request["prompt"]], np.int64)), config(request))
        for i, request in enumerate(requests)
    ]
    times: list[list[float]] = [[] for _ in requests]
    while pipeline.has_non_finished_requests():
        pipeline.step()
        now = time.perf_counter() - start
        for handle, seen in zip(handles, times, strict=True):
            while handle.can_read():
                seen += [now] * sum(len(output.generated_ids) for output in handle.read().values())
    return times


def config(request: dict[str, Any]) -> GenerationConfig:
    """Greedy, of an exact length."""
    found = GenerationConfig()
    found.max_new_tokens = found.min_new_tokens = request["max_new_tokens"]
    found.ignore_eos = True
    found.do_sample = False
    return found


if __name__ == "__main__":
    main()
