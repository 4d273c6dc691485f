"""Triton's interpreter for every test in this process, unless TRITON_INTERPRET says otherwise (`make test-gpu` does).

It has to be chosen before anything imports triton. Where there is no triton, what tests its kernels is left out.
"""

import os
from importlib.util import find_spec

os.environ.setdefault("TRITON_INTERPRET", "1")

collect_ignore = [
    "benchmarks",
    "gpu",
    "kernels/aot",
    "kernels/gpu",
    "server/execution/test_cuda_graphs.py",
    "server/execution/test_decode_inputs.py",
    "server/models/falcon/test_model_triton.py",
    "test_serve_triton.py",
]
if find_spec("triton"):
    collect_ignore = []
