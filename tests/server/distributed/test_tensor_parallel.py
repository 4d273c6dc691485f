"""The collectives of a group of real processes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from peregrine_server.distributed.tensor_parallel import TensorParallel

RANK = """
import json, sys
from datetime import timedelta
from pathlib import Path
import torch
from peregrine_server.distributed.rendezvous import Rendezvous
from peregrine_server.distributed.tensor_parallel import TensorParallel

def listening():
    files = {str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()}
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    rows = [line.split() for line in lines]
    return [row[1] for row in rows if f"socket:[{row[9]}]" in files and row[3] == "0A"]

rank, size, file, seconds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
parallel = TensorParallel.join(rank, size, torch.device("cpu"), Rendezvous(file), timedelta(seconds=seconds))
total = torch.full((2, 3), rank + 1.0, dtype=torch.bfloat16)
parallel.all_reduce(total)
gathered = parallel.all_gather(torch.tensor([[10.0 * rank, 10.0 * rank + 1], [-rank, -rank - 1.0]]))
print(json.dumps({"sum": total.tolist(), "gathered": gathered.tolist(), "listening": listening()}))
parallel.close()
"""


def start(rank: int, size: int, file: Path, seconds: float = 60) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RANK, str(rank), str(size), str(file), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_collectives(tmp_path: Path) -> None:
    """all_reduce sums in place, all_gather concatenates the last dimension, and every socket listens on loopback."""
    ranks = [start(rank, 2, tmp_path / "rendezvous") for rank in range(2)]
    results: list[dict[str, Any]] = [json.loads(rank.communicate(timeout=60)[0]) for rank in ranks]
    for result in results:
        assert result["sum"] == [[3.0] * 3] * 2
        assert result["gathered"] == [[0.0, 1.0, 10.0, 11.0], [0.0, -1.0, -1.0, -2.0]]
        assert result["listening"]
        assert all(address.startswith("0100007F:") for address in result["listening"])


@pytest.mark.slow
def test_a_rank_that_does_not_join_is_an_error(tmp_path: Path) -> None:
    """A group that is incomplete after the timeout fails instead of waiting for ever."""
    alone = start(0, 2, tmp_path / "rendezvous", seconds=2)
    _, errors = alone.communicate(timeout=60)
    assert alone.returncode != 0
    assert "Error" in errors.strip().splitlines()[-1]


def test_a_group_of_one_does_nothing() -> None:
    """Alone, collectives return their input and no group is made."""
    parallel = TensorParallel()
    x = torch.ones(2, 3)
    parallel.all_reduce(x)
    assert torch.equal(x, torch.ones(2, 3))
    assert parallel.all_gather(x) is x
    parallel.close()
