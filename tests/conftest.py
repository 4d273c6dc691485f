"""Triton's interpreter for every test in this process, unless TRITON_INTERPRET says otherwise (`make test-gpu` does).

It has to be chosen before anything imports triton.
"""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
