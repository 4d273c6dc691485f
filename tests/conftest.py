"""Triton's interpreter for every test in this process, unless TRITON_INTERPRET says otherwise (`make test-gpu` does).

It has to be chosen before anything imports triton. Where there is no triton, what tests its kernels is left out. So are
the published clients, each in an environment of its own (`make test-clients`), and the Helm chart (`make test-chart`).
"""

import os
import signal
from importlib.util import find_spec

os.environ.setdefault("TRITON_INTERPRET", "1")
# Under nohup it would be ignored by the servers too, which tests end by it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

pytest_plugins = ["beside"]
collect_ignore = ["clients", "helm"]
_TRITONS = [
    "benchmarks",
    "gpu",
    "kernels/aot",
    "kernels/gpu",
    "server/execution/test_cuda_graphs.py",
    "server/execution/test_decode_inputs.py",
    "server/execution/test_memory_profile.py",
    "server/models/falcon/test_model_triton.py",
    "server/models/falcon/test_model_triton_quantized.py",
    "test_serve_triton.py",
]
if not find_spec("triton"):
    collect_ignore += _TRITONS
