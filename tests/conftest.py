"""Triton's interpreter for every test in this process, unless TRITON_INTERPRET says otherwise (`make test-gpu` does).

It has to be chosen before anything imports triton. Where there is no triton, what tests its kernels is left out.
"""

import os
from importlib.util import find_spec

os.environ.setdefault("TRITON_INTERPRET", "1")

collect_ignore = [
    "benchmarks",
    "gpu",
    "kernels/test_kernels_report.py",
    "kernels/test_triton_attention.py",
    "kernels/test_triton_decode_inputs.py",
    "kernels/test_triton_dense.py",
    "kernels/test_triton_sampling.py",
    "server/test_decode_inputs.py",
    "server/test_falcon_triton.py",
    "server/test_graphs.py",
    "test_serve_triton.py",
]
if find_spec("triton"):
    collect_ignore = []
