"""Loads a checkpoint as a process of its own and prints the memory that it took, in bytes (JSON).

Arguments: folder, dtype, bytes that may be read ahead, format of the weights or none.
"""

import json
import re
import sys
from pathlib import Path

import torch

from falcons import load, model_context
from peregrine_kernels import DenseWeight, backend_for
from peregrine_server.models.loading import read_ahead


def memory(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def warm_up(dtype: torch.dtype) -> None:
    """Loads the libraries that the first linear needs: their pages are no weights."""
    linear = backend_for(torch.device("cpu")).linear(DenseWeight(torch.zeros(64, 64, dtype=dtype)))
    linear(torch.zeros(1, 64, dtype=dtype))


def main() -> None:
    path, dtype, quantize = Path(sys.argv[1]), getattr(torch, sys.argv[2]), [*sys.argv[4:], None][0]
    read_ahead.READ_AHEAD_BYTES = int(sys.argv[3])
    torch.set_num_threads(1)
    warm_up(dtype)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    model = load(path, model_context(dtype, quantize=quantize))
    results = {"peak": memory("VmHWM") - before, "after": memory("VmRSS") - before, "weights": model.weight_bytes}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
