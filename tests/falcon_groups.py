"""Falcons on one, two or three ranks, in real processes."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

PROCESS = Path(__file__).parent / "server" / "models" / "falcon" / "falcon_process.py"

Result = dict[str, Any]
"""The result of `run_case` of falcon_process.py."""


def run_group(directory: Path, size: int, cases: list[dict[str, Any]]) -> list[list[Result]]:
    """The results of every case on every rank of one group of processes."""

    def run(rank: int) -> list[Result]:
        output = directory / f"rank-{rank}"
        job = {"rank": rank, "size": size, "rendezvous": f"{directory}/meet", "output": str(output), "cases": cases}
        command = [sys.executable, "-W", "error", str(PROCESS)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(command, input=json.dumps(job), text=True, check=True, timeout=200, env=environment)
        results: list[Result] = torch.load(output)
        return results

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))
