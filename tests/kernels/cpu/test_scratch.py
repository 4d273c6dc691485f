"""Memory of the native kernels' intermediate results."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from peregrine_kernels import native


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_too_little_memory_is_said(tmp_path: Path) -> None:
    """The process ends with a line that names the options to lower."""
    library, source = tmp_path / "threads.so", Path(native.__file__).with_name("threads.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-mavx2", "-mfma", str(source), "-o", str(library)], check=True)
    code = f"import ctypes; ctypes.CDLL({str(library)!r}).scratch(0, ctypes.c_long(2**50))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGABRT
    # Before it stands the address sanitizer's own warning, in `make test-sanitized`.
    assert "peregrine: no memory for 1073741824 MiB of intermediate results: lower --max-" in done.stderr
